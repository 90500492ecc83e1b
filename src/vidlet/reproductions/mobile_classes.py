"""The per-class report of Chiche 2019 (KTH): UCF101 split 1, GRU behind quantized MobileNetV2 and Inception-v3."""

from __future__ import annotations

from typing import NamedTuple

METRICS = ("precision", "recall", "F1")
Metrics = tuple[float, float, float]


class ClassReport(NamedTuple):
    """Precision, recall and F1 of a class with each extractor, and how many test clips it has."""

    mobilenetv2: Metrics
    inceptionv3: Metrics
    support: int


def class_reports() -> dict[str, ClassReport]:
    """The printed report, class by class."""
    reports = {}
    for line in PRINTED.strip().splitlines():
        name, *numbers = line.split()
        p, r, f, p2, r2, f2 = map(float, numbers[:6])
        reports[name] = ClassReport((p, r, f), (p2, r2, f2), int(numbers[6]))
    return reports


# class, then precision, recall, F1 with quantized MobileNetV2, the same with Inception-v3, and the support
PRINTED = """
ApplyEyeMakeup      0.67 0.64 0.65  0.86 0.73 0.79  44
ApplyLipstick       0.62 0.78 0.69  0.69 0.62 0.66  32
Archery             0.62 0.61 0.62  0.83 0.93 0.87  41
BabyCrawling        0.79 0.97 0.87  0.92 1.00 0.96  35
BalanceBeam         0.76 0.61 0.68  0.51 0.61 0.56  31
BandMarching        0.84 0.95 0.89  0.72 0.98 0.83  43
BaseballPitch       0.95 0.86 0.90  0.74 0.81 0.78  43
Basketball          0.47 0.91 0.62  0.54 0.74 0.63  35
BasketballDunk      0.97 1.00 0.99  0.84 1.00 0.91  37
BenchPress          0.85 0.96 0.90  0.82 0.83 0.82  48
Biking              0.97 0.97 0.97  0.92 0.95 0.94  38
Billiards           1.00 1.00 1.00  1.00 1.00 1.00  40
BlowDryHair         0.76 0.68 0.72  0.84 0.71 0.77  38
BlowingCandles      0.66 0.94 0.78  0.89 1.00 0.94  33
BodyWeightSquats    0.19 0.13 0.16  0.47 0.23 0.31  30
Bowling             0.87 0.93 0.90  0.87 0.93 0.90  43
BoxingPunchingBag   0.92 0.45 0.60  0.74 0.80 0.76  49
BoxingSpeedBag      0.53 0.81 0.64  0.67 0.81 0.73  37
BreastStroke        0.53 0.96 0.68  0.56 0.71 0.63  28
BrushingTeeth       0.31 0.31 0.31  0.75 0.50 0.60  36
CleanAndJerk        0.61 0.70 0.65  0.75 0.73 0.74  33
CliffDiving         0.88 0.97 0.93  0.90 0.90 0.90  39
CricketBowling      0.36 0.39 0.37  0.35 0.31 0.33  36
CricketShot         0.41 0.27 0.32  0.48 0.45 0.46  49
CuttingInKitchen    0.91 0.94 0.93  0.73 1.00 0.85  33
Diving              0.96 1.00 0.98  0.94 0.98 0.96  45
Drumming            0.81 0.87 0.84  0.95 0.91 0.93  45
Fencing             0.71 0.85 0.77  0.94 0.88 0.91  34
FieldHockeyPenalty  0.62 0.45 0.52  0.74 0.80 0.77  40
FloorGymnastics     0.89 0.67 0.76  0.61 0.78 0.68  36
FrisbeeCatch        0.60 0.81 0.69  0.80 0.76 0.78  37
FrontCrawl          0.87 0.35 0.50  0.70 0.51 0.59  37
GolfSwing           0.52 0.87 0.65  0.64 0.59 0.61  39
Haircut             0.45 0.67 0.54  0.54 0.82 0.65  33
HammerThrow         0.83 0.64 0.73  0.55 0.69 0.61  45
Hammering           0.85 0.33 0.48  0.76 0.67 0.71  33
HandStandPushups    0.68 0.68 0.68  0.72 0.64 0.68  28
HandstandWalking    0.08 0.06 0.07  0.33 0.21 0.25  34
HeadMassage         0.47 0.78 0.59  0.87 0.83 0.85  41
HighJump            0.90 0.49 0.63  0.71 0.46 0.56  37
HorseRace           0.89 0.97 0.93  0.84 0.91 0.88  35
HorseRiding         0.96 1.00 0.98  0.94 1.00 0.97  49
HulaHoop            0.62 0.59 0.61  0.90 0.82 0.86  34
IceDancing          0.85 0.98 0.91  1.00 0.98 0.99  46
JavelinThrow        0.77 0.65 0.70  0.58 0.45 0.51  31
JugglingBalls       0.51 0.50 0.51  0.74 0.88 0.80  40
JumpRope            0.11 0.08 0.09  0.17 0.05 0.08  38
JumpingJack         0.79 0.62 0.70  0.67 0.54 0.60  37
Kayaking            0.83 0.69 0.76  0.88 0.83 0.86  36
Knitting            1.00 0.82 0.90  1.00 0.82 0.90  34
LongJump            0.75 0.54 0.63  0.46 0.59 0.52  39
Lunges              0.40 0.46 0.43  0.71 0.41 0.52  37
MilitaryParade      0.88 0.91 0.90  0.90 0.82 0.86  33
Mixing              1.00 0.62 0.77  1.00 0.78 0.88  45
MoppingFloor        0.65 0.71 0.68  0.67 0.82 0.74  34
Nunchucks           0.33 0.20 0.25  0.35 0.31 0.33  35
ParallelBars        0.85 0.92 0.88  0.62 0.97 0.76  37
PizzaTossing        0.48 0.42 0.45  0.59 0.61 0.60  33
PlayingCello        1.00 0.77 0.87  1.00 0.68 0.81  44
PlayingDaf          0.89 0.80 0.85  0.89 1.00 0.94  41
PlayingDhol         0.70 0.88 0.78  1.00 1.00 1.00  49
PlayingFlute        1.00 0.85 0.92  0.95 0.85 0.90  48
PlayingGuitar       1.00 1.00 1.00  1.00 1.00 1.00  43
PlayingPiano        0.80 1.00 0.89  0.96 0.86 0.91  28
PlayingSitar        1.00 0.98 0.99  1.00 1.00 1.00  44
PlayingTabla        0.91 1.00 0.95  0.90 0.84 0.87  31
PlayingViolin       0.92 0.86 0.89  0.70 1.00 0.82  28
PoleVault           0.93 1.00 0.96  0.69 0.95 0.80  40
PommelHorse         0.86 0.51 0.64  0.93 0.74 0.83  35
PullUps             0.44 0.25 0.32  0.90 0.64 0.75  28
Punch               0.81 0.87 0.84  1.00 0.87 0.93  39
PushUps             0.68 0.57 0.62  0.79 0.73 0.76  30
Rafting             0.89 0.89 0.89  0.89 0.89 0.89  28
RockClimbingIndoor  0.93 1.00 0.96  0.98 0.98 0.98  41
RopeClimbing        0.72 0.68 0.70  0.65 0.71 0.68  34
Rowing              0.80 0.92 0.86  0.88 0.78 0.82  36
SalsaSpin           0.48 0.58 0.53  0.66 0.72 0.69  43
ShavingBeard        0.53 0.44 0.48  0.56 0.88 0.68  43
Shotput             0.61 0.59 0.60  0.70 0.50 0.58  46
SkateBoarding       0.68 0.66 0.67  0.67 0.75 0.71  32
Skiing              0.81 0.75 0.78  0.81 0.75 0.78  40
Skijet              1.00 1.00 1.00  0.97 1.00 0.98  28
SkyDiving           0.97 0.97 0.97  0.97 0.97 0.97  31
SoccerJuggling      0.43 0.41 0.42  0.48 0.59 0.53  39
SoccerPenalty       0.81 0.83 0.82  0.94 0.83 0.88  41
StillRings          0.97 0.94 0.95  0.88 0.72 0.79  32
SumoWrestling       0.94 1.00 0.97  0.83 0.88 0.86  34
Surfing             0.94 1.00 0.97  0.87 1.00 0.93  33
Swing               0.70 0.88 0.78  0.81 0.81 0.81  42
TableTennisShot     0.93 0.97 0.95  1.00 1.00 1.00  39
TaiChi              0.74 0.61 0.67  0.78 0.75 0.76  28
TennisSwing         0.46 0.24 0.32  0.68 0.43 0.53  49
ThrowDiscus         0.38 0.76 0.50  0.54 0.71 0.61  38
TrampolineJumping   0.79 0.94 0.86  0.69 0.97 0.81  32
Typing              1.00 0.91 0.95  1.00 0.81 0.90  43
UnevenBars          0.70 0.93 0.80  1.00 0.86 0.92  28
VolleyballSpiking   0.78 0.89 0.83  0.59 0.69 0.63  35
WalkingWithDog      0.70 0.78 0.74  0.72 0.86 0.78  36
WallPushups         0.46 0.31 0.37  0.56 0.43 0.48  35
WritingOnBoard      1.00 0.96 0.98  0.95 0.91 0.93  45
YoYo                0.80 0.56 0.66  0.74 0.64 0.69  36
"""

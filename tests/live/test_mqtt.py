"""Events by MQTT: against a broker of sockets that speaks as much of 3.1.1 as is needed, and can refuse and go away."""

import contextlib
import json
import socket
import struct
import threading
import time

import pytest

from artifacts import classifier, save
from vidlet.errors import DataError, RecipeError
from vidlet.live import mqtt
from vidlet.live.events import Event
from vidlet.live.mqtt import Broker, Sensor

pytest.importorskip("paho.mqtt.client", reason="pip install paho-mqtt")


class BrokerOfSockets:
    """Accepts one client after the other; keeps what was published, and the last will where nobody said goodbye."""

    def __init__(self, login: tuple[str, str] | None = None, port: int = 0) -> None:
        self.login, self.told, self.connects = login, [], []
        self.listener = socket.create_server(("127.0.0.1", port))
        self.port = self.listener.getsockname()[1]
        self.open: list[socket.socket] = []
        threading.Thread(target=self._serve, daemon=True).start()

    def address(self, login: str = "") -> str:
        return f"mqtt://{login}127.0.0.1:{self.port}"

    def last(self) -> dict[str, str]:
        """Topic -> what is retained of it."""
        return dict(self.told)

    def wait(self, topic: str, text: str) -> None:
        deadline = time.monotonic() + 10
        while (topic, text) not in self.told:
            assert time.monotonic() < deadline, f"{topic} {text} was not told; {self.told}"
            time.sleep(0.01)

    def close(self) -> None:
        for one in (self.listener, *self.open):
            with_suppressed(one.shutdown, socket.SHUT_RDWR)
            one.close()

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            self.open.append(client)
            threading.Thread(target=self._speak, args=(client,), daemon=True).start()

    def _speak(self, client: socket.socket) -> None:
        will, polite = None, False
        try:
            while (packet := read_packet(client)) is not None:
                kind, flags, body = packet
                if kind == 1:
                    name, will, login = connect_of(body)
                    self.connects.append((name, will, login))
                    refused = self.login is not None and login != self.login
                    client.sendall(b"\x20\x02\x00" + (b"\x05" if refused else b"\x00"))
                elif kind == 3:
                    length = struct.unpack(">H", body[:2])[0]
                    topic, rest = body[2 : 2 + length].decode(), body[2 + length :]
                    if flags >> 1 & 3:
                        client.sendall(b"\x40\x02" + rest[:2])
                        rest = rest[2:]
                    assert flags & 1, "what is not retained is lost at the next start of Home Assistant"
                    self.told.append((topic, rest.decode()))
                elif kind == 12:
                    client.sendall(b"\xd0\x00")
                elif kind == 14:
                    polite = True
                    return
        except OSError:
            pass
        finally:
            if will and not polite:
                self.told.append(will)
            client.close()


def with_suppressed(call, *args) -> None:
    with contextlib.suppress(OSError):
        call(*args)


def read_packet(client: socket.socket) -> tuple[int, int, bytes] | None:
    first = client.recv(1)
    if not first:
        return None
    length, shift = 0, 0
    while True:
        byte = client.recv(1)[0]
        length |= (byte & 127) << shift
        shift += 7
        if not byte & 128:
            break
    body = b""
    while len(body) < length:
        body += client.recv(length - len(body))
    return first[0] >> 4, first[0] & 15, body


def connect_of(body: bytes) -> tuple[str, tuple[str, str] | None, tuple[str, str] | None]:
    """Client, last will, login of a CONNECT of version 3.1.1."""
    flags, rest, texts = body[7], body[10:], []
    while rest:
        length = struct.unpack(">H", rest[:2])[0]
        texts.append(rest[2 : 2 + length].decode())
        rest = rest[2 + length :]
    name = texts.pop(0)
    will = (texts.pop(0), texts.pop(0)) if flags & 4 else None
    login = (texts.pop(0), texts.pop(0) if flags & 64 else "") if flags & 128 else None
    return name, will, login


@pytest.fixture
def broker():
    made = BrokerOfSockets()
    yield made
    made.close()


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(mqtt, "LAST_WAIT_S", 2.0)
    for name in (mqtt.USER, mqtt.PASSWORD):
        monkeypatch.delenv(name, raising=False)


def test_home_assistant_is_told_of_a_sensor_that_is_on_while_the_event_goes_on(broker):
    said = []
    sensor = Sensor(broker.address(), "rtsp://eve:secret@10.0.0.9/door", "Wave hello", "model.int8.onnx", said.append)
    sensor.start()
    broker.wait(f"{sensor.topic}/state", "OFF")
    (config,) = (topic for topic in broker.last() if topic.startswith("homeassistant/"))
    assert config.startswith("homeassistant/binary_sensor/")
    assert config.endswith("/wave_hello/config")
    told = json.loads(broker.last()[config])
    assert told["state_topic"] == f"{sensor.topic}/state"
    assert (told["name"], told["payload_on"], told["payload_off"]) == ("Wave hello", "ON", "OFF")
    assert told["unique_id"].startswith("vidlet_")
    assert told["device"]["model"] == "model.int8.onnx"
    status = told["availability_topic"]
    assert broker.last()[status] == "online"
    assert broker.connects[0][1] == (status, "offline")  # the last will
    sensor.began(Event("Wave hello", 2.5, 0.91))
    broker.wait(told["state_topic"], "ON")
    about = json.loads(broker.last()[told["json_attributes_topic"]])
    assert about == {"label": "Wave hello", "score": 0.91, "time_s": 2.5, "source": "rtsp://***@10.0.0.9/door"}
    sensor.ended(Event("Wave hello", 2.5, 0.97, 4.0))
    sensor.close()
    assert broker.last()[told["state_topic"]] == "OFF"
    assert json.loads(broker.last()[told["json_attributes_topic"]])["end_s"] == 4.0
    assert broker.last()[status] == "offline"
    assert (sensor.lost, said) == (0, [])
    assert not any("secret" in text for pair in broker.told for text in pair)


def test_user_and_password_come_from_the_address_or_the_environment_and_are_never_said(monkeypatch):
    strict = BrokerOfSockets(("eve", "s3cr3t"))
    said = []
    sensor = Sensor(strict.address("eve:s3cr3t@"), "0", "wave", say=said.append)
    sensor.start()
    strict.wait(f"{sensor.topic}/state", "OFF")
    sensor.close()
    monkeypatch.setenv(mqtt.USER, "eve")
    monkeypatch.setenv(mqtt.PASSWORD, "s3cr3t")
    sensor = Sensor(strict.address(), "1", "wave", say=said.append)
    sensor.start()
    strict.wait(f"{sensor.topic}/state", "OFF")
    sensor.close()
    assert said == []
    wrong = Sensor(strict.address("eve:wr0ng@"), "2", "wave", say=said.append)
    wrong.start()
    deadline = time.monotonic() + 10
    while not said and time.monotonic() < deadline:
        time.sleep(0.01)
    assert "refused the connection" in said[0]
    assert "tried again" not in said[0]
    count = len(strict.connects)
    wrong.began(Event("wave", 1.0, 0.9))
    wrong.close()
    assert len(strict.connects) == count  # a wrong password is not tried again
    assert wrong.lost > 0
    assert "wr0ng" not in repr(said)
    assert "s3cr3t" not in repr(said)
    strict.close()


def test_a_broker_that_went_away_is_told_its_state_anew_when_it_is_back(broker, monkeypatch):
    monkeypatch.setattr(mqtt, "LAST_WAIT_S", 10.0)
    said = []
    sensor = Sensor(broker.address(), "0", "wave", say=said.append)
    sensor.start()
    broker.wait(f"{sensor.topic}/state", "OFF")
    broker.close()
    deadline = time.monotonic() + 10
    while not said and time.monotonic() < deadline:
        time.sleep(0.01)
    assert said[0].endswith("; it is tried again")
    sensor.began(Event("wave", 3.0, 0.9))
    again = BrokerOfSockets(port=broker.port)
    again.wait(f"{sensor.topic}/state", "ON")
    assert any(topic.startswith("homeassistant/") for topic in again.last())
    assert said[1].endswith(": is back")
    assert len(said) == 2
    sensor.close()
    assert again.last()[f"{sensor.topic}/state"] == "OFF"
    again.close()


def test_where_nobody_answers_the_view_does_not_wait_and_what_was_lost_is_told(monkeypatch):
    monkeypatch.setattr(mqtt, "LAST_WAIT_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    said, before = [], time.monotonic()
    sensor = Sensor(f"mqtt://127.0.0.1:{port}", "0", "wave", say=said.append)
    sensor.start()
    sensor.began(Event("wave", 1.0, 0.9))
    assert time.monotonic() - before < 1.0
    sensor.close()
    assert sensor.lost > 0
    assert f"--mqtt 127.0.0.1:{port}: {sensor.lost} messages were not delivered" in said


def test_a_live_view_tells_a_broker_of_its_events(broker, tmp_path, capsys):
    import numpy as np

    import vidlet
    from vidlet.video import write_video

    save(classifier(), tmp_path / "m.onnx")
    red, blue = (np.full((12, 16, 3), color, np.uint8) for color in ((250, 5, 5), (5, 5, 250)))
    write_video(tmp_path / "clip.mp4", [red] * 24 + [blue] * 48, 24)
    model = vidlet.load(tmp_path / "m.onnx")
    lines = list(
        vidlet.predict(model, tmp_path / "clip.mp4", live=True, on="red", above=0.7, min_s=0.2, mqtt=broker.address())
    )
    assert lines[0]["label"] == "red"
    states = [text for topic, text in broker.told if topic.endswith("/red/state")]
    assert states.index("ON") > states.index("OFF")
    assert states[-1] == "OFF"
    assert "red begins" in capsys.readouterr().err
    with pytest.raises(RecipeError, match="need --on LABEL"):
        list(vidlet.predict(model, 0, mqtt=broker.address()))
    with pytest.raises(DataError):
        list(vidlet.predict(model, tmp_path / "absent.mp4", live=True))


def test_nobody_is_told_of_a_source_that_is_not_there(broker, tmp_path):
    import vidlet

    save(classifier(), tmp_path / "m.onnx")
    with pytest.raises(DataError, match=r"absent\.mp4"):
        list(vidlet.predict(tmp_path / "m.onnx", tmp_path / "absent.mp4", live=True, on="red", mqtt=broker.address()))
    time.sleep(0.3)  # that a connection would take
    assert broker.connects == [] and broker.told == []


@pytest.mark.parametrize("address", ["http://host", "mqtt://", "mqtt://eve:pass@host:x", "mqtt://host/a/+", "host"])
def test_what_is_no_address_of_a_broker_is_one_line_without_its_password(address):
    with pytest.raises(RecipeError, match="expected an address as in mqtt://") as caught:
        Broker.of(address)
    assert "pass" not in str(caught.value)


def test_parts_of_an_address_have_their_meaning():
    broker = Broker.of("mqtts://eve:p%40ss@host/home/vidlet?discovery=ha")
    assert (broker.host, broker.port, broker.user, broker.password) == ("host", 8883, "eve", "p@ss")
    assert (broker.secure, broker.prefix, broker.discovery) == (True, "home/vidlet", "ha")
    assert broker.place == "host:8883"

# vidlet's runtime in a container, for x86-64 and 64-bit ARM: wheels only, no compiler, no torch.
# Its wheels bring libx264 and libx265 (GPL): see NOTICE before you pass an image on.
#
#     docker build -t vidlet .                                      on the machine itself, or
#     docker buildx build --platform linux/amd64,linux/arm64 .      for both
#     docker run --rm --device /dev/video0 -v "$PWD:/work" vidlet predict model.onnx 0
ARG PYTHON=3.12

FROM python:${PYTHON}-slim AS build
WORKDIR /source
COPY pyproject.toml README.md LICENSE NOTICE ./
COPY src ./src
RUN pip wheel --quiet --no-cache-dir --no-deps --wheel-dir /wheels .

FROM python:${PYTHON}-slim
COPY --from=build /wheels /wheels
RUN pip install --quiet --no-cache-dir --only-binary=:all: /wheels/*.whl && rm -r /wheels
# cameras belong to the group video
RUN useradd --create-home --groups video vidlet
USER vidlet
ENV OMP_NUM_THREADS=1
WORKDIR /work
ENTRYPOINT ["vidlet"]
CMD ["--help"]

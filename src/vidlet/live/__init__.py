"""Before a camera: what is shown, which events are told, and what follows an event. No torch."""

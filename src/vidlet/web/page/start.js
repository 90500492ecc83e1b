// Old-fashioned on purpose: this runs where the rest cannot, and says why.
(function () {
  "use strict";
  var simd = new Uint8Array([
    0, 97, 115, 109, 1, 0, 0, 0, 1, 5, 1, 96, 0, 1, 123, 3, 2, 1, 0, 10, 10, 1, 8, 0, 65, 0, 253, 15, 253, 98, 11,
  ]);
  var problem = "";
  if (location.protocol === "file:") {
    problem =
      "This page was opened as a file, and browsers let a file load no model. Serve its folder instead: run " +
      "“python3 -m http.server” in it, then open http://localhost:8000.";
  } else if (typeof WebAssembly !== "object" || !WebAssembly.validate(simd)) {
    problem =
      "This browser has no WebAssembly SIMD, which the model needs. Use a current Firefox, Chrome, Edge, or Safari " +
      "16.4 or later.";
  }
  if (problem) {
    document.documentElement.dataset.problem = "yes";
    document.getElementById("problem").textContent = problem;
    document.getElementById("problem").hidden = false;
    document.getElementById("status").textContent = "";
    document.getElementById("hint").textContent = "";
  }
})();

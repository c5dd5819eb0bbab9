// Sets the theme before the first paint: what the visitor chose, else what the system prefers.
(function () {
  "use strict";
  var KEY = "ezscale-theme";
  var system = window.matchMedia("(prefers-color-scheme: dark)");

  function chosen() {
    try {
      var value = localStorage.getItem(KEY);
      return value === "light" || value === "dark" ? value : null;
    } catch (_) {
      return null; // Storage may be forbidden; the system's preference still holds.
    }
  }

  function apply() {
    var theme = chosen() || (system.matches ? "dark" : "light");
    var before = document.documentElement.getAttribute("data-bs-theme");
    document.documentElement.setAttribute("data-bs-theme", theme);
    if (before && before !== theme) document.dispatchEvent(new CustomEvent("ez:theme"));
  }

  window.ezTheme = {
    chosen: chosen,
    choose: function (theme) {
      try {
        if (theme) localStorage.setItem(KEY, theme);
        else localStorage.removeItem(KEY);
      } catch (_) {
        document.documentElement.setAttribute("data-bs-theme", theme || "light");
      }
      apply();
    },
  };
  system.addEventListener("change", apply);
  apply();
})();

// Draws the traffic overview, and keeps it fresh.
//
// The page carries everything: the table is the legend, the figures lie in #overview-data. Refreshing fetches the same
// address again and replaces the elements marked data-live, so there is one template and no second source of numbers.
(function () {
  "use strict";
  var REFRESH_MS = 30000;
  var GIVE_UP_MS = 20000;
  var WINDOW_MS = 300000;
  var TOOLTIP_ROWS = 12;
  // The chart library leaves out points closer than 2 px, in each band others, which tears gaps between stacked bands.
  var MIN_POINT_PX = 2.5;
  // Added to a band's key: its part that is still filling.
  var OPEN_SUFFIX = " open";
  var STORAGE_KEY = "ezscale-overview-refresh";

  var canvas = document.getElementById("overview-chart");
  var toggle = document.getElementById("overview-refresh");
  var status = document.getElementById("overview-status");
  if (!canvas || !window.echarts || !window.ezCharts) return;

  var chart = window.echarts.init(canvas);
  var hidden = new Set();
  var timer = 0;
  var per = 1;
  var data = read();

  function read() {
    return JSON.parse(document.getElementById("overview-data").textContent);
  }

  function minute(ms) {
    return window.ezCharts.time(ms, "UTC");
  }

  // Bands have the colours of their classes, which the table shows too.
  function colours() {
    var probe = document.createElement("span");
    canvas.after(probe);
    var found = new Map();
    data.series.forEach(function (series) {
      probe.className = "ez-swatch " + series.colour;
      found.set(series.key, getComputedStyle(probe).backgroundColor);
    });
    probe.remove();
    return found;
  }

  // Steps drawn as one point, so that points keep their distance.
  function stepsPerPoint() {
    return Math.max(1, Math.ceil((data.starts_ms.length * MIN_POINT_PX) / Math.max(canvas.clientWidth, 1)));
  }

  function isOpen(start) {
    return data.open_from_ms !== null && start >= data.open_from_ms;
  }

  // Points of all bands: start, end, and the mean rate of their steps, each weighed by its part of the range.
  function points() {
    per = stepsPerPoint();
    var made = [];
    var closed = data.starts_ms.findIndex(isOpen);
    if (closed < 0) closed = data.starts_ms.length;
    for (var first = 0; first < data.starts_ms.length; first = last) {
      // What is still filling is never mixed with what is over.
      var last = Math.min(first + per, first < closed ? closed : data.starts_ms.length);
      var steps = [];
      for (var i = first; i < last; i += 1) {
        var start = Math.max(data.starts_ms[i], data.from_ms);
        steps.push({ index: i, start: start, length: Math.min(data.starts_ms[i] + data.step_ms, data.to_ms) - start });
      }
      made.push({
        start: steps[0].start,
        end: steps[steps.length - 1].start + steps[steps.length - 1].length,
        steps: steps,
        isOpen: first >= closed,
      });
    }
    return made;
  }

  function mean(rates, steps) {
    var sum = 0;
    var length = 0;
    steps.forEach(function (step) {
      sum += rates[step.index] * step.length;
      length += step.length;
    });
    return length > 0 ? sum / length : 0;
  }

  function tooltip(colour, drawn) {
    return function (hits) {
      if (!hits.length || !drawn.length) return "";
      var at = hits[0].value[0];
      var shown = drawn.reduce(function (found, point) {
        return point.start <= at ? point : found;
      }, drawn[0]);
      // Where the two parts meet, both have a point.
      hits = hits.filter(function (point) {
        return point.seriesId.endsWith(OPEN_SUFFIX) === shown.isOpen;
      });
      var largest = hits
        .filter(function (point) {
          return point.value[1] > 0;
        })
        .sort(function (a, b) {
          return b.value[1] - a.value[1];
        });
      var rows = largest.slice(0, TOOLTIP_ROWS).map(function (point) {
        return { color: colour.get(point.seriesId.replace(OPEN_SUFFIX, "")), name: point.seriesName, value: window.ezCharts.bits(point.value[1]) };
      });
      var sum = largest.reduce(function (total, point) {
        return total + point.value[1];
      }, 0);
      rows.push({ color: "transparent", name: "Sum", value: window.ezCharts.bits(sum) });
      var note = shown.isOpen ? "Still filling: rated over what has passed." : "";
      return window.ezCharts.tooltip(minute(shown.start) + " – " + minute(shown.end).slice(-5) + " UTC", rows, note);
    };
  }

  function draw() {
    var card = canvas.closest(".card");
    card.hidden = !data.series.length;
    if (card.hidden) return;
    var theme = window.ezCharts.theme();
    var colour = colours();
    var drawn = points();
    var shown = data.series.filter(function (series) {
      return !hidden.has(series.key);
    });
    // The part of the bands that is over, or the part that is still filling: pale, with a dashed edge, so that nobody reads
    // it as a drop.
    function bands(ofOpen) {
      var points = drawn.filter(function (point) {
        return point.isOpen === ofOpen;
      });
      if (!points.length) return [];
      return shown.map(function (one) {
        var line = points.map(function (point) {
          return [point.start, mean(one.bits_per_second, point.steps)];
        });
        // The last point stands for its whole step: it is drawn to the end of it.
        line.push([points[points.length - 1].end, line[line.length - 1][1]]);
        var hue = colour.get(one.key);
        return {
          id: one.key + (ofOpen ? OPEN_SUFFIX : ""),
          name: one.name,
          type: "line",
          stack: ofOpen ? "filling" : "traffic",
          symbol: "none",
          lineStyle: ofOpen ? { width: 1, type: "dashed", color: hue } : { width: 0 },
          itemStyle: { color: hue },
          areaStyle: { color: hue, opacity: ofOpen ? 0.3 : 0.85 },
          emphasis: { disabled: true },
          data: line,
        };
      });
    }
    var series = bands(false).concat(bands(true));
    // What is still filling does not set the axis, unless there is nothing else.
    function highest(ofOpen) {
      return drawn.reduce(function (top, point) {
        if (point.isOpen !== ofOpen) return top;
        var sum = shown.reduce(function (total, one) {
          return total + mean(one.bits_per_second, point.steps);
        }, 0);
        return Math.max(top, sum);
      }, 0);
    }
    var whole = highest(false);
    var isCapped = whole > 0 && highest(true) > whole;
    var long = data.to_ms - data.from_ms > 36 * 3600000;
    chart.setOption(
      {
        animation: false,
        useUTC: true,
        backgroundColor: "transparent",
        textStyle: { fontFamily: "inherit", color: theme.text },
        grid: { left: 8, right: 16, top: 12, bottom: 4, containLabel: true },
        tooltip: {
          trigger: "axis",
          confine: true,
          backgroundColor: theme.surface,
          borderColor: theme.line,
          padding: 8,
          textStyle: { color: theme.text },
          axisPointer: { type: "line", lineStyle: { color: theme.muted } },
          formatter: tooltip(colour, drawn),
        },
        // Only there so that a range can be dragged; its buttons lie outside the picture.
        toolbox: { top: -100, feature: { dataZoom: { yAxisIndex: false } } },
        xAxis: {
          type: "time",
          min: data.from_ms,
          max: data.to_ms,
          axisLine: { lineStyle: { color: theme.line } },
          axisTick: { show: false },
          axisLabel: {
            color: theme.muted,
            hideOverlap: true,
            formatter: long ? { month: "{d} {MMM}", day: "{d} {MMM}", hour: "{HH}:{mm}" } : "{HH}:{mm}",
          },
          splitLine: { show: false },
        },
        yAxis: {
          type: "value",
          max: isCapped ? whole * 1.1 : null,
          axisLabel: { color: theme.muted, formatter: window.ezCharts.short("bit/s"), showMaxLabel: isCapped ? false : null },
          splitLine: { lineStyle: { color: theme.line } },
        },
        series: series,
      },
      { notMerge: true },
    );
    chart.dispatchAction({ type: "takeGlobalCursor", key: "dataZoomSelect", dataZoomSelectActive: true });
  }

  // Dragging over the chart asks for that range.
  chart.on("datazoom", function (event) {
    var zoom = event.batch ? event.batch[0] : event;
    if (typeof zoom.startValue !== "number" || typeof zoom.endValue !== "number") return;
    var from = Math.floor(zoom.startValue / WINDOW_MS) * WINDOW_MS;
    var to = Math.ceil(zoom.endValue / WINDOW_MS) * WINDOW_MS;
    if (to <= from) return;
    var address = new URL(window.location.href);
    address.searchParams.delete("range");
    address.searchParams.set("from", new Date(from).toISOString());
    address.searchParams.set("to", new Date(to).toISOString());
    window.location.assign(address);
  });

  // The table is the legend: a row's swatch hides and shows its band.
  function applyHidden() {
    document.querySelectorAll("[data-series]").forEach(function (button) {
      button.disabled = false;
      button.setAttribute("aria-pressed", String(!hidden.has(button.dataset.series)));
    });
  }
  document.addEventListener("click", function (event) {
    var button = event.target.closest("[data-series]");
    if (!button) return;
    if (!hidden.delete(button.dataset.series)) hidden.add(button.dataset.series);
    applyHidden();
    draw();
  });

  function say(text, isError) {
    if (!status) return;
    status.textContent = text;
    status.classList.toggle("ez-chart-error", Boolean(isError));
  }

  function refresh() {
    return fetch(window.location.href, {
      credentials: "same-origin",
      // By a timer: it must not pass for somebody who is there.
      headers: { Accept: "text/html", "EZSCALE-Background": "1" },
      signal: AbortSignal.timeout(GIVE_UP_MS),
    })
      .then(function (response) {
        if (response.redirected) {
          stop();
          say("Signed out: reload the page to sign in again.", true);
          return undefined;
        }
        if (!response.ok) throw new Error("status " + response.status);
        return response.text();
      })
      .then(function (html) {
        if (html === undefined) return;
        var fresh = new DOMParser().parseFromString(html, "text/html");
        document.querySelectorAll("[data-live]").forEach(function (old) {
          var replacement = fresh.getElementById(old.id);
          if (replacement) old.replaceWith(document.adoptNode(replacement));
        });
        data = read();
        applyHidden();
        draw();
        say("Updated " + new Date().toISOString().slice(11, 19) + " UTC");
      })
      .catch(function (error) {
        say("Could not refresh (" + error.message + "), trying again.", true);
      });
  }

  function stop() {
    window.clearInterval(timer);
    timer = 0;
  }
  function start() {
    if (!timer && toggle && toggle.checked && !document.hidden) timer = window.setInterval(refresh, REFRESH_MS);
  }
  function remembered() {
    try {
      return localStorage.getItem(STORAGE_KEY) !== "off";
    } catch (_) {
      return true; // Storage may be forbidden.
    }
  }
  function remember(on) {
    try {
      localStorage.setItem(STORAGE_KEY, on ? "on" : "off");
    } catch (_) {
      // It holds for this page then.
    }
  }

  if (toggle) {
    toggle.closest("[hidden]").hidden = false;
    toggle.checked = remembered();
    toggle.addEventListener("change", function () {
      remember(toggle.checked);
      stop();
      say("");
      if (toggle.checked) {
        refresh();
        start();
      }
    });
    document.addEventListener("visibilitychange", function () {
      stop();
      if (!document.hidden && toggle.checked) {
        refresh();
        start();
      }
    });
  }

  new ResizeObserver(function () {
    chart.resize();
    if (per !== stepsPerPoint()) draw();
  }).observe(canvas);
  document.addEventListener("ez:theme", draw);
  applyHidden();
  draw();
  start();
})();

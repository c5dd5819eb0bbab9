// How the usage chart is drawn: mean rate in and out per step, gaps shaded, the 95th percentile and the commit as lines.
ezCharts.register("usage", function (data, theme) {
  "use strict";
  var WINDOW_S = 300;
  var RATED_MIN_S = 60;
  var DATES_FROM_MS = 3.5 * 86400000;
  var zone = data.time_zone;
  var measured = data.points.filter(function (point) {
    return point.windows_measured > 0 || ratedSeconds(point) >= RATED_MIN_S;
  });
  if (!measured.length) return null;

  // Seconds of a step that have passed and whose windows are not closed: flows may still be on their way to them.
  function fillingSeconds(point) {
    var from = Math.max(point.start_ms, data.closed_until_ms);
    return Math.max(0, (Math.min(point.end_ms, data.now_ms) - from) / 1000);
  }
  function ratedSeconds(point) {
    return point.windows_measured * WINDOW_S + fillingSeconds(point);
  }
  // Drawn as a rate over what was measured of the step and what has passed of its open windows; a step without either is a
  // break in the line.
  function rate(point, bytes) {
    var seconds = ratedSeconds(point);
    return seconds >= RATED_MIN_S ? (bytes * 8) / seconds : null;
  }
  // A run of measured steps is drawn to the end of its last step, so that it meets the shade of a gap.
  function line(field) {
    var drawn = [];
    data.points.forEach(function (point, i) {
      var value = fillingSeconds(point) > 0 ? null : rate(point, point[field]);
      drawn.push([point.start_ms, value]);
      var next = data.points[i + 1];
      var goesOn = next && next.windows_measured > 0 && fillingSeconds(next) === 0;
      if (value !== null && !goesOn) drawn.push([point.end_ms - 1, value]);
    });
    return drawn;
  }
  // Steps that are still filling are drawn apart, dashed, each as wide as what has passed of it.
  function fillingLine(field, color) {
    var drawn = [];
    data.points.forEach(function (point) {
      var value = fillingSeconds(point) > 0 ? rate(point, point[field]) : null;
      if (value !== null) drawn.push([point.start_ms, value], [Math.min(point.end_ms, data.now_ms), value]);
    });
    // The end is a point in the colour of its direction; the legend keeps the one of the series.
    if (drawn.length) drawn.push({ value: drawn.pop(), itemStyle: { color: color } });
    return drawn;
  }
  var shaded = data.points
    .filter(function (point) {
      return point.windows > 0 && point.windows_measured === 0;
    })
    .map(function (point) {
      return [{ xAxis: point.start_ms }, { xAxis: point.end_ms }];
    });
  function pointAt(ms) {
    return data.points.find(function (point) {
      return point.start_ms <= ms && ms < point.end_ms;
    });
  }
  function highestOf(points) {
    return points.reduce(function (top, point) {
      return Math.max(top, rate(point, Math.max(point.bytes_in, point.bytes_out)));
    }, 0);
  }
  // What is still filling does not set the axis, unless there is nothing else.
  var complete = measured.filter(function (point) {
    return fillingSeconds(point) === 0;
  });
  var highest = highestOf(complete.length ? complete : measured);

  var lines = [];
  if (data.percentile_95_bps !== null) {
    lines.push({ yAxis: data.percentile_95_bps, name: "95th " + ezCharts.bits(data.percentile_95_bps), lineStyle: { color: theme.warn } });
  }
  if (data.commit_bps !== null) {
    lines.push({ yAxis: data.commit_bps, name: "Commit " + ezCharts.bits(data.commit_bps), lineStyle: { color: theme.muted } });
  }
  // The labels of two lines that lie close keep out of each other's way: one above its line, one beneath.
  lines
    .sort(function (a, b) {
      return b.yAxis - a.yAxis;
    })
    .forEach(function (one, position) {
      one.label = { position: position === 0 ? "insideEndTop" : "insideEndBottom" };
    });
  var peak = lines.reduce(function (top, one) {
    return Math.max(top, one.yAxis);
  }, 0);

  var isCapped = peak > highest || highestOf(measured) > highest;

  function series(name, field, color, extra) {
    return Object.assign(
      {
        name: name,
        type: "line",
        data: line(field),
        showSymbol: false,
        connectNulls: false,
        sampling: "lttb",
        itemStyle: { color: color },
        lineStyle: { width: 1.5, color: color },
      },
      extra,
    );
  }

  function filling(field, color) {
    var drawn = fillingLine(field, color);
    if (!drawn.length) return [];
    return [
      series("Still filling", field, color, {
        data: drawn,
        sampling: undefined,
        // One window is a few pixels wide over a week: its end is a point, so that it is seen.
        showSymbol: true,
        showAllSymbol: true,
        symbol: function (value, at) {
          return at.dataIndex === drawn.length - 1 ? "circle" : "none";
        },
        symbolSize: 6,
        lineStyle: { width: 1.5, type: "dashed", color: color, opacity: 0.7 },
        areaStyle: { color: color, opacity: 0.06 },
        itemStyle: { color: theme.muted },
      }),
    ];
  }

  return {
    xAxis: {
      type: "time",
      min: data.from_ms,
      max: data.to_ms,
      splitLine: { show: false },
      axisLabel: {
        formatter: function (ms) {
          var clock = ezCharts.clock(ms, zone);
          // Ticks are at midnight of the browser, which is some other hour here: over many days the date alone is told.
          var isDate = data.to_ms - data.from_ms > DATES_FROM_MS || clock === "00:00";
          return isDate ? ezCharts.day(ms, zone) : clock;
        },
      },
    },
    yAxis: {
      type: "value",
      min: 0,
      max: isCapped ? Math.max(peak, highest) * 1.1 : null,
      axisLabel: { formatter: ezCharts.short("bit/s"), showMaxLabel: isCapped ? false : null },
    },
    tooltip: {
      formatter: function (hits) {
        var point = pointAt(hits[0].axisValue);
        if (!point) return "";
        var rows = [
          { name: "Received", color: theme.in, bytes: point.bytes_in },
          { name: "Sent", color: theme.out, bytes: point.bytes_out },
        ].map(function (row) {
          var mean = rate(point, row.bytes);
          row.value = mean === null ? "not measured" : ezCharts.bits(mean) + " · " + ezCharts.bytes(row.bytes, data.volume_units);
          return row;
        });
        var note = "";
        if (fillingSeconds(point) > 0) {
          note = "Still filling: rated over what has passed.";
        } else if (point.windows_measured < point.windows) {
          note = point.windows_measured + " of " + point.windows + " five-minute windows were measured.";
        }
        return ezCharts.tooltip(ezCharts.time(point.start_ms, zone), rows, note);
      },
    },
    series: [
      series("Received", "bytes_in", theme.in, {
        areaStyle: { color: theme.in, opacity: 0.16 },
        markArea: { silent: true, itemStyle: { color: theme.gap }, data: shaded },
        markLine: {
          silent: true,
          symbol: "none",
          data: lines,
          lineStyle: { type: "dashed", width: 1.5 },
          label: {
            formatter: "{b}",
            position: "insideEndTop",
            color: theme.text,
            backgroundColor: theme.surface,
            borderRadius: 3,
            padding: [2, 4],
          },
        },
      }),
      series("Sent", "bytes_out", theme.out),
    ].concat(filling("bytes_in", theme.in), filling("bytes_out", theme.out)),
  };
});

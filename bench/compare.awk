# Results of compare.sh as a table (form=txt), JSON (form=json) or a plot (form=svg).
#
#   awk -v form=FORM -f compare.awk machine.tsv programs.tsv cases.tsv results.tsv
#
# machine: key, value. programs: label, version. cases: name, title, in the order of the output. results: round, case, program,
# metric, value. Every figure is the median over the rounds; the spread is the smallest and the largest.

BEGIN {
  FS = "\t"
  # The metrics in the order of the output: title, unit, digits after the point, whether more is better.
  describe("gbps", "throughput", "Gb/s", 2, 1)
  describe("cpu", "CPU time per payload, both ends", "s/GB", 2, 0)
  describe("mbps", "highest lossless rate", "Mb/s", 0, 1)
  describe("kpps", "packets delivered under flood", "kpkt/s", 0, 1)
  describe("cpu_packet", "CPU time per packet, both ends", "us/pkt", 2, 0)
  describe("loss", "loss", "%", 3, 0)
  describe("rtt", "round trip, median", "us", 0, 0)
  describe("rtt99", "round trip, 99th percentile", "us", 0, 0)
  describe("idle_memory", "resident memory, idle", "MB", 1, 0)
  describe("loaded_memory", "resident memory, loaded", "MB", 1, 0)
  describe("retransmits", "TCP segments sent again", "", 0, 0)
  describe("reordered", "packets out of order", "", 0, 0)
}

function describe(name, title, unit, digits, more) {
  metrics[++metric_count] = name
  metric_title[name] = title; metric_unit[name] = unit; metric_digits[name] = digits
  metric_more[name] = more
}

FNR == 1 { ++file }
file == 1 { machine[$1] = $2 }
file == 2 { programs[++program_count] = $1; version[$1] = $2 }
file == 3 { cases[++case_count] = $1; case_title[$1] = $2 }
file == 4 {
  if ($1 > machine["rounds"]) machine["rounds"] = $1
  if ($4 == "failed") { failed[$2, $3] = 1; failures[++failure_count] = $0; next }
  runs[++run_count] = $0
  if ($4 == "others") { other[++other_count] = $5 + 0; next }
  name = $4 ~ /_memory$/ ? "memory" : $2
  values[name, $4, $3, ++count[name, $4, $3]] = $5 + 0
}

# Sorts sorted[1..n].
function sort(n,   i, j, x) {
  for (i = 2; i <= n; ++i) {
    x = sorted[i]
    for (j = i - 1; j >= 1 && sorted[j] > x; --j) sorted[j + 1] = sorted[j]
    sorted[j + 1] = x
  }
}

function middle(n) { return n % 2 ? sorted[(n + 1) / 2] : (sorted[n / 2] + sorted[n / 2 + 1]) / 2 }

# Sets median, least and most; false without results.
function look_up(name, metric, program,   n, i) {
  n = count[name, metric, program]
  if (!n) return 0
  for (i = 1; i <= n; ++i) sorted[i] = values[name, metric, program, i]
  sort(n)
  median = middle(n); least = sorted[1]; most = sorted[n]
  return 1
}

# Sets ratio: the median by the baseline's. False without a baseline, or when its figure is 0.
function look_up_ratio(name, metric, program,   mine) {
  look_up(name, metric, program)
  mine = median
  if (!look_up(name, metric, machine["baseline"]) || median == 0) return 0
  ratio = mine / median
  return 1
}

function measured(name, metric,   i) {
  for (i = 1; i <= program_count; ++i) if (count[name, metric, programs[i]]) return 1
  return 0
}

# Whether any run showed more than 0.
function any(name, metric,   p) {
  for (p = 1; p <= program_count; ++p) if (look_up(name, metric, programs[p]) && most > 0) return 1
  return 0
}

function named(program) { return program (version[program] == "unknown" ? "" : " " version[program]) }

function number(x, digits) { return sprintf("%.*f", digits, x) }

function others_median(   i) {
  for (i = 1; i <= other_count; ++i) sorted[i] = other[i]
  sort(other_count)
  return other_count ? middle(other_count) : 0
}

END {
  if (form == "json") json()
  else if (form == "svg") svg()
  else table()
}

# ---- table ----------------------------------------------------------------------------------------------------------

function table(   c, m, p, f, field, cell, line, name, metric) {
  printf "\n%s, %s cores, Linux %s, TCP %s, %s\n", machine["cpu"], machine["cores"], machine["kernel"], machine["congestion"], machine["date"]
  printf "median of %s rounds of %s s (smallest-largest), x ratio to %s; both ends of the tunnel and the load on the same cores\n\n", \
         machine["rounds"], machine["seconds"], machine["baseline"]
  printf "%-46s %-7s", "", ""
  for (p = 1; p <= program_count; ++p) printf " %-28s", named(programs[p])
  printf "\n"
  for (c = 1; c <= case_count; ++c) {
    name = cases[c]
    for (m = 1; m <= metric_count; ++m) {
      metric = metrics[m]
      if (!measured(name, metric) || (metric ~ /^(retransmits|reordered)$/ && !any(name, metric))) continue
      line = name == "memory" ? metric_title[metric] ", " case_title[name] : case_title[name]
      if (metric ~ /^(retransmits|reordered|rtt99|loss)$/) line = line ", " (metric == "rtt99" ? "99 %" : metric)
      printf "%-46s %-7s", line, metric_unit[metric]
      for (p = 1; p <= program_count; ++p) {
        cell = failed[name, programs[p]] ? "failed" : "-"
        if (look_up(name, metric, programs[p])) {
          cell = number(median, metric_digits[metric]) " (" number(least, metric_digits[metric]) "-" number(most, metric_digits[metric]) ")"
          if (programs[p] != machine["baseline"] && metric !~ /^(retransmits|reordered|loss)$/ && look_up_ratio(name, metric, programs[p]))
            cell = cell " x" number(ratio, 2)
        }
        printf " %-28s", cell
      }
      printf "\n"
    }
  }
  printf "\nOther work took %.0f %% of this machine's cores during the runs (median). Every figure is from a run in which the\n", others_median()
  printf "counters of both ends of the tunnel showed the bytes that arrived.\n"
  for (f = 1; f <= failure_count; ++f) {
    split(failures[f], field, "\t")
    printf "Failed, and in no figure: %s, %s, round %d: %s.\n", field[3], field[2], field[1], field[5]
  }
  printf "Rows of zeros are left out: segments sent again (retransmits) and packets out of order (reordered).\n"
  for (p = 1; p <= program_count; ++p)
    if (programs[p] == "wireguard-go" && match(version[programs[p]], /[0-9][0-9][0-9][0-9][0-9][0-9][0-9][0-9]/) && \
        substr(version[programs[p]], RSTART, 8) + 0 < 20230320)
      printf "This wireguard-go is older than its offloads (March 2023) and no fair baseline: ./dev peers builds the current one.\n"
}

# ---- JSON -----------------------------------------------------------------------------------------------------------

function quoted(text) {
  gsub(/\\/, "\\\\", text)
  gsub(/"/, "\\\"", text)
  gsub(/[\001-\037]/, " ", text)
  return "\"" text "\""
}

function json(   i, c, m, p, first, field) {
  printf "{\n  \"machine\": {\"cpu\": %s, \"cores\": %d, \"kernel\": %s, \"others_percent\": %.1f},\n", \
         quoted(machine["cpu"]), machine["cores"], quoted(machine["kernel"]), others_median()
  printf "  \"date\": %s,\n  \"congestion\": %s,\n  \"rounds\": %d,\n  \"seconds\": %d,\n  \"baseline\": %s,\n  \"failures\": [", \
         quoted(machine["date"]), quoted(machine["congestion"]), machine["rounds"], machine["seconds"], quoted(machine["baseline"])
  for (i = 1; i <= failure_count; ++i) {
    split(failures[i], field, "\t")
    printf "%s\n    {\"round\": %d, \"case\": %s, \"program\": %s, \"why\": %s}", (i > 1 ? "," : ""), \
           field[1], quoted(field[2]), quoted(field[3]), quoted(field[5])
  }
  printf "],\n"
  printf "  \"programs\": ["
  for (p = 1; p <= program_count; ++p)
    printf "%s{\"label\": %s, \"version\": %s}", (p > 1 ? ", " : ""), quoted(programs[p]), quoted(version[programs[p]])
  printf "],\n  \"summary\": ["
  for (c = 1; c <= case_count; ++c)
    for (m = 1; m <= metric_count; ++m)
      for (p = 1; p <= program_count; ++p) {
        if (!look_up(cases[c], metrics[m], programs[p])) continue
        printf "%s\n    {\"case\": %s, \"metric\": %s, \"unit\": %s, \"program\": %s, \"median\": %.6g, \"min\": %.6g, \"max\": %.6g, \"runs\": %d", \
               (first++ ? "," : ""), quoted(cases[c]), quoted(metrics[m]), quoted(metric_unit[metrics[m]]), quoted(programs[p]), \
               median, least, most, count[cases[c], metrics[m], programs[p]]
        if (look_up_ratio(cases[c], metrics[m], programs[p])) printf ", \"ratio\": %.4g", ratio
        printf "}"
      }
  printf "\n  ],\n  \"runs\": ["
  for (i = 1; i <= run_count; ++i) {
    split(runs[i], field, "\t")
    printf "%s\n    {\"round\": %d, \"case\": %s, \"program\": %s, \"metric\": %s, \"value\": %.6g}", (i > 1 ? "," : ""), \
           field[1], quoted(field[2]), quoted(field[3]), quoted(field[4]), field[5]
  }
  printf "\n  ]\n}\n"
}

# ---- plot -----------------------------------------------------------------------------------------------------------
# A row of two panels per pair of metrics; in a panel one group of bars per case. The bar is the median, the whisker the
# spread, the figure after it the ratio to the baseline.

function escaped(text) {
  gsub(/&/, "\\&amp;", text)
  gsub(/</, "\\&lt;", text)
  return text
}

function text_at(x, y, class, text) { body = body sprintf("<text x=\"%.1f\" y=\"%.1f\" class=\"%s\">%s</text>\n", x, y, class, escaped(text)) }

# Of 1, 2 and 5 × 10^n the one that cuts `largest` into two to five.
function step_for(largest,   step) {
  step = 1
  while (step * 10 <= largest) step *= 10
  while (step > largest) step /= 10
  if (largest / step > 5) return step * 2
  return largest / step < 2 ? step / 2 : step
}

# One panel at (left, y): heading, grid, bars. `height` is that of all its groups.
function panel(metric, left, y, height,   c, p, largest, step, x, tick, top, label) {
  largest = 0
  for (c = 1; c <= case_count; ++c)
    for (p = 1; p <= program_count; ++p)
      if (look_up(cases[c], metric, programs[p]) && most > largest) largest = most
  if (largest == 0) return
  text_at(left, y, "t", metric_title[metric])
  text_at(left, y + 13, "s", metric_unit[metric] (metric_more[metric] ? "" : ", less is better"))
  y += 20
  top = y
  step = step_for(largest)
  for (tick = 0; tick <= largest * 1.001; tick += step) {
    x = left + tick / largest * bar_room
    grid = grid sprintf("<path d=\"M%.1f %.1fV%.1f\" class=\"g\"/>\n", x, top, top + height)
    body = body sprintf("<text x=\"%.1f\" y=\"%.1f\" class=\"a\">%g</text>\n", x, top + height + 12, tick)
  }
  for (c = 1; c <= case_count; ++c) {
    if (!in_row[cases[c]]) continue
    y += group_gap / 2
    for (p = 1; p <= program_count; ++p) {
      if (look_up(cases[c], metric, programs[p])) {
        x = left + most / largest * bar_room + 5
        body = body sprintf("<rect x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%d\" fill=\"%s\"/>\n", left, y, median / largest * bar_room, bar - 2, color[(p - 1) % color_count + 1])
        body = body sprintf("<path d=\"M%.1f %.1fH%.1f\" class=\"w\"/>\n", left + least / largest * bar_room, y + bar / 2 - 1, x - 5)
        label = number(median, metric_digits[metric])
        if (programs[p] != machine["baseline"] && metric != "loss" && look_up_ratio(cases[c], metric, programs[p])) label = label " (" number(ratio, 2) "×)"
        text_at(x, y + bar - 4, "v", label)
      } else if (failed[cases[c], programs[p]] && measured(cases[c], metric)) {
        text_at(left + 5, y + bar - 4, "v", "failed")
      }
      y += bar
    }
    y += group_gap / 2
  }
}

function svg(   c, i, p, y, x, rows, row, names, groups, height, label) {
  bar = 12; group_gap = 9; bar_room = 235
  color_count = split("#2563eb #9ca3af #d97706 #7c9a5e #a78bfa #64748b", color, " ")
  body = ""; grid = ""
  text_at(16, 32, "h", "WireGuard in userspace, side by side")
  text_at(16, 52, "s", machine["cpu"] ", " machine["cores"] " cores, Linux " machine["kernel"] ", TCP " machine["congestion"] ", " machine["date"] ". Both ends of the tunnel and the load on the same cores; other work took " number(others_median(), 0) " %.")
  text_at(16, 67, "s", "Bars: median of " machine["rounds"] " rounds of " machine["seconds"] " s, programs in turn. Lines: smallest to largest. (×): ratio to " machine["baseline"] ".")
  x = 16
  for (p = 1; p <= program_count; ++p) {
    body = body sprintf("<rect x=\"%.1f\" y=\"80\" width=\"11\" height=\"11\" rx=\"2\" fill=\"%s\"/>\n", x, color[(p - 1) % color_count + 1])
    label = named(programs[p])
    text_at(x + 16, 90, "l", label)
    x += 36 + 6.8 * length(label)
  }
  y = 106
  rows = split("gbps cpu;kpps cpu_packet;mbps loss;rtt rtt99;idle_memory loaded_memory", row, ";")
  for (i = 1; i <= rows; ++i) {
    split(row[i], names, " ")
    groups = 0
    for (c = 1; c <= case_count; ++c) groups += in_row[cases[c]] = measured(cases[c], names[1]) || measured(cases[c], names[2])
    if (!groups) continue
    height = groups * (program_count * bar + group_gap)
    y += 20
    panel(names[1], 200, y, height)
    panel(names[2], 545, y, height)
    y += 20
    for (c = 1; c <= case_count; ++c) {
      if (!in_row[cases[c]]) continue
      text_at(190, y + (program_count * bar + group_gap) / 2 + 3, "c", case_title[cases[c]])
      y += program_count * bar + group_gap
    }
    y += 22
  }
  printf "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"880\" height=\"%d\" viewBox=\"0 0 880 %d\" font-family=\"system-ui, 'DejaVu Sans', sans-serif\">\n", y, y
  printf "<style>.h{font-size:17px;font-weight:600;fill:#111827}.s{font-size:11px;fill:#6b7280}.l{font-size:12px;fill:#374151}"
  printf ".t{font-size:13px;font-weight:600;fill:#111827}.c{font-size:11px;fill:#374151;text-anchor:end}.v{font-size:10px;fill:#374151}"
  printf ".a{font-size:10px;fill:#9ca3af;text-anchor:middle}.g{stroke:#e5e7eb}.w{stroke:#111827;stroke-width:1.2;stroke-opacity:.65}</style>\n"
  printf "<rect width=\"880\" height=\"%d\" fill=\"#ffffff\"/>\n%s%s</svg>\n", y, grid, body
}

//! A line chart as SVG text: hit rate by memory, one line for each policy.

use std::fmt::Write;

use engine::system::human_bytes;

use super::Row;

const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 460.0;
/// Left, right, top, bottom.
const MARGIN: [f64; 4] = [64.0, 24.0, 48.0, 64.0];
/// Told apart by everybody (Okabe and Ito), and by their dashes.
const LINES: [(&str, &str); 4] =
    [("#0072b2", ""), ("#d55e00", "7 3"), ("#009e73", "2 3"), ("#cc79a7", "9 3 2 3")];

/// The chart. `rows` ascend in slots and have the same policies.
pub(super) fn svg(title: &str, rows: &[Row]) -> String {
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" \
         font-family=\"sans-serif\" font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n\
         <text x=\"{}\" y=\"24\" font-size=\"15\">{}</text>\n",
        MARGIN[0],
        escape(title)
    );
    axes(&mut svg, rows);
    let names = rows.first().map_or(&[][..], |row| &row.policies);
    for (index, outcome) in names.iter().enumerate() {
        let (colour, dash) = LINES[index % LINES.len()];
        let points: Vec<String> = rows
            .iter()
            .filter_map(|row| {
                let rate = row.policies.get(index)?.hit_rate;
                Some(format!("{:.1},{:.1}", x(rows, row.slots), y(rate)))
            })
            .collect();
        let _ = writeln!(
            svg,
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\" stroke-dasharray=\"{dash}\"/>",
            points.join(" ")
        );
        for point in &points {
            let (px, py) = point.split_once(',').unwrap_or_default();
            let _ = writeln!(svg, "<circle cx=\"{px}\" cy=\"{py}\" r=\"3\" fill=\"{colour}\"/>");
        }
        let (left, top) = (WIDTH - MARGIN[1] - 120.0, HEIGHT - MARGIN[3] - 16.0 - 18.0 * index as f64);
        let _ = writeln!(
            svg,
            "<line x1=\"{left}\" y1=\"{top}\" x2=\"{}\" y2=\"{top}\" stroke=\"{colour}\" stroke-width=\"2\" \
             stroke-dasharray=\"{dash}\"/><text x=\"{}\" y=\"{}\">{}</text>",
            left + 30.0,
            left + 38.0,
            top + 4.0,
            escape(outcome.policy)
        );
    }
    svg.push_str("</svg>\n");
    svg
}

fn axes(svg: &mut String, rows: &[Row]) {
    let [left, right, top, bottom] = [MARGIN[0], WIDTH - MARGIN[1], MARGIN[2], HEIGHT - MARGIN[3]];
    for tenth in (0..=10).step_by(2) {
        let (rate, at) = (10 * tenth, y(f64::from(tenth) / 10.0));
        let _ = writeln!(
            svg,
            "<line x1=\"{left}\" y1=\"{at:.1}\" x2=\"{right}\" y2=\"{at:.1}\" stroke=\"#ddd\"/>\
             <text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{rate} %</text>",
            left - 8.0,
            at + 4.0
        );
    }
    let _ = writeln!(
        svg,
        "<line x1=\"{left}\" y1=\"{bottom}\" x2=\"{right}\" y2=\"{bottom}\" stroke=\"black\"/>\
         <line x1=\"{left}\" y1=\"{top}\" x2=\"{left}\" y2=\"{bottom}\" stroke=\"black\"/>\
         <text x=\"{}\" y=\"{}\" text-anchor=\"middle\">expert slots (share of all experts, memory), logarithmic</text>",
        (left + right) / 2.0,
        HEIGHT - 10.0
    );
    let mut last = f64::NEG_INFINITY;
    for row in rows {
        let at = x(rows, row.slots);
        if at - last < 74.0 {
            continue; // Its words would touch those before it.
        }
        last = at;
        let _ = writeln!(
            svg,
            "<line x1=\"{at:.1}\" y1=\"{bottom}\" x2=\"{at:.1}\" y2=\"{}\" stroke=\"black\"/>\
             <text x=\"{at:.1}\" y=\"{}\" text-anchor=\"middle\">{}</text>\
             <text x=\"{at:.1}\" y=\"{}\" text-anchor=\"middle\" font-size=\"10\">{:.0} % · {}</text>",
            bottom + 5.0,
            bottom + 18.0,
            row.slots,
            bottom + 32.0,
            100.0 * row.share,
            human_bytes(row.bytes)
        );
    }
}

fn x(rows: &[Row], slots: usize) -> f64 {
    let log = |slots: usize| (slots.max(1) as f64).ln();
    let least = rows.first().map_or(0.0, |row| log(row.slots));
    let most = rows.last().map_or(1.0, |row| log(row.slots));
    let span = if most > least { most - least } else { 1.0 };
    // Room for half a label at both ends.
    let (left, right) = (MARGIN[0] + 36.0, WIDTH - MARGIN[1] - 36.0);
    left + (log(slots) - least) / span * (right - left)
}

fn y(rate: f64) -> f64 {
    HEIGHT - MARGIN[3] - rate * (HEIGHT - MARGIN[2] - MARGIN[3])
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

//! The table, in Markdown so that it can be pasted.

use std::time::Duration;

use super::figures::{Figure, Target};
use super::measure::{Measured, Outcome};

const HEAD: [&str; 6] = ["figure", "ours", "peer", "ratio", "target", "met"];

/// Returns the table of all figures.
pub fn table(figures: &[Figure]) -> String {
    let rows: Vec<[String; 6]> = figures.iter().flat_map(rows).collect();
    let head = HEAD.map(str::to_owned);
    let mut widths = [0; 6];
    for row in rows.iter().chain([&head]) {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let line = |row: &[String; 6]| {
        let cells: Vec<String> = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        format!("| {} |\n", cells.join(" | "))
    };
    let rule = widths.map(|width| "-".repeat(width));
    [head, rule].iter().chain(&rows).map(line).collect()
}

/// Returns whether ours did all its work, whatever the time.
pub fn complete(figures: &[Figure]) -> bool {
    figures.iter().all(|figure| !figure.measured[0].samples().is_empty())
}

/// One row for each target and for each peer that has none.
fn rows(figure: &Figure) -> Vec<[String; 6]> {
    let (ours, others) = figure.measured.split_first().expect("ours comes first");
    let mut rows: Vec<[String; 6]> = figure.targets.iter().map(|target| row(figure, target)).collect();
    let has_target = |name| {
        let is_of = |target: &Target| match target {
            Target::Ratio(peer, _) | Target::RatioAndTime(peer, ..) => *peer == name,
            _ => false,
        };
        figure.targets.iter().any(is_of)
    };
    let is_shown = |other: &&Measured| has_target(other.name) || is_probe(other);
    rows.extend(others.iter().filter(|other| !is_shown(other)).map(|other| {
        let ratio = ours.ratio(other).map_or_else(String::new, factor);
        [figure.name.to_owned(), cell(ours), peer(other), ratio, String::new(), String::new()]
    }));
    rows
}

fn row(figure: &Figure, target: &Target) -> [String; 6] {
    let ours = &figure.measured[0];
    let other = |name: &str| figure.measured.iter().find(|m| m.name == name);
    let (peer_cell, ratio, wanted, met) = match target {
        Target::Unknown => (String::new(), String::new(), String::new(), None),
        Target::Time(limit) => {
            (probes(figure), String::new(), format!("≤ {}", time(*limit)), ours.wall().map(|wall| wall <= *limit))
        }
        Target::TimeAndSyncs(limit, count) => {
            let sum = other("fdatasync").and_then(Measured::wall).map(|sync| *limit + sync * *count);
            let wanted = format!("≤ {} + {count} fdatasync = {}", time(*limit), sum.map_or("?".to_owned(), time));
            let met = ours.wall().zip(sum).map(|(wall, limit)| wall <= limit);
            (probes(figure), String::new(), wanted, met)
        }
        Target::Ratio(name, limit) => {
            let ratio = other(name).and_then(|other| ours.ratio(other));
            let text = ratio.map_or_else(String::new, factor);
            (other(name).map_or_else(String::new, peer), text, format!("≤ {limit:.2} ×"), ratio.map(|r| r <= *limit))
        }
        Target::RatioAndTime(name, limit, more) => {
            let ratio = other(name).and_then(|other| ours.ratio(other));
            let sum = other(name).and_then(Measured::wall).map(|other| other.mul_f64(*limit) + *more);
            let wanted = format!("≤ {limit:.2} × + {} = {}", time(*more), sum.map_or("?".to_owned(), time));
            let met = ours.wall().zip(sum).map(|(wall, limit)| wall <= limit);
            (other(name).map_or_else(String::new, peer), ratio.map_or_else(String::new, factor), wanted, met)
        }
        Target::Memory(limit) => {
            let met = ours.memory().map(|memory| memory <= *limit);
            (String::new(), String::new(), format!("≤ {} MiB peak", limit >> 10), met)
        }
        Target::Size(size, name, other, limit) => {
            let ratio = *size as f64 / *other as f64;
            let (size, other) = (*size as f64 / 1e6, *other as f64 / 1e6);
            let sizes = format!("layer {size:.1} MB, {name} {other:.1} MB");
            (sizes, factor(ratio), format!("≤ {limit:.2} × in size"), Some(ratio <= *limit))
        }
        Target::Count(what, count, most) => {
            (format!("{what}: {count}"), String::new(), format!("≤ {most}"), Some(count <= most))
        }
    };
    let met = match met {
        Some(true) => "yes",
        Some(false) => "NO",
        None => "?",
    };
    [figure.name.to_owned(), cell(ours), peer_cell, ratio, wanted, met.to_owned()]
}

/// Returns the probes of a figure, which tell what the machine was like just then.
fn probes(figure: &Figure) -> String {
    let cells: Vec<String> = figure.measured.iter().filter(|m| is_probe(m)).map(peer).collect();
    cells.join(", ")
}

fn is_probe(measured: &Measured) -> bool {
    matches!(measured.name, "/bin/true" | "fdatasync")
}

fn peer(measured: &Measured) -> String {
    format!("{} {}", measured.name, cell(measured))
}

fn cell(measured: &Measured) -> String {
    match &measured.outcome {
        Outcome::Missing => "not installed".to_owned(),
        Outcome::Failed(why) => format!("failed: {}", why.replace('|', "/")),
        Outcome::Samples(_) => {
            let wall = measured.wall().map_or_else(String::new, time);
            match measured.memory().zip(measured.cpu()) {
                Some((memory, cpu)) if !is_probe(measured) => {
                    format!("{wall} (cpu {}), {} MiB", time(cpu), memory >> 10)
                }
                _ => wall,
            }
        }
    }
}

fn time(time: Duration) -> String {
    let ms = time.as_secs_f64() * 1e3;
    match ms {
        ..10.0 => format!("{ms:.2} ms"),
        ..1000.0 => format!("{ms:.0} ms"),
        _ => format!("{:.2} s", ms / 1e3),
    }
}

fn factor(ratio: f64) -> String {
    format!("{ratio:.3} ×")
}

use std::io::{BufReader, Read, repeat};

use chrono::DateTime;

use super::*;
use crate::audit::{Action, Event, User};

/// Returns the lines of a log of that many records.
fn log(count: u64) -> Vec<String> {
    let mut last: Option<Head> = None;
    let (user, now) = (User::default(), DateTime::from_timestamp(2_000_000_000, 0).unwrap());
    let line = |seq: u64| {
        let event = Event::of(Action::Install, format!("acme/hr:1.0.{seq}"));
        let line = Record::following(last.as_ref(), &event, &user, now).line().unwrap();
        last = Some(Head { seq, hash: hash(line.as_bytes()) });
        line
    };
    (1..=count).map(line).collect()
}

fn checked(files: &[(&str, &str)], heads: &[String], whole: bool) -> Report {
    let files = files.iter().map(|(name, text)| ((*name).to_owned(), text.as_bytes())).collect();
    check(files, heads, whole).unwrap()
}

fn text(lines: &[String]) -> String {
    lines.iter().map(|line| line.clone() + "\n").collect()
}

/// What was done to a log, and what is said of it.
type Case = (&'static str, fn(&mut Vec<String>), Option<(Kind, u64, &'static str)>);

#[test]
fn whatever_is_done_to_inner_lines_shows() {
    let cases: [Case; 17] = [
        ("nothing", |_| (), None),
        ("a byte", |log| log[2] = log[2].replace("1.0.3", "1.0.9"), Some((Kind::Changed, 3, "record 3 was changed"))),
        ("a space", |log| log[2] += " ", Some((Kind::Changed, 3, "record 3 was changed"))),
        ("the first", |log| log[0] = log[0].replace("ok", "failed"), Some((Kind::Changed, 1, "record 1 was changed"))),
        (
            "a hash",
            |log| log[2] = log[2].replace("sha256:", "sha256:0"),
            Some((Kind::Changed, 3, "record 3 was changed")),
        ),
        (
            "a number",
            |log| log[2] = log[2].replace("\"seq\":3", "\"seq\":7"),
            Some((Kind::Changed, 3, "record 7 was changed: it follows 2")),
        ),
        (
            "to no record",
            |log| log[2] = "{}".into(),
            Some((Kind::Changed, 3, "record 3 was changed: it is no record any more")),
        ),
        (
            "to two of a key",
            |log| log[2] = log[2].replace("{\"seq\":3", "{\"seq\":3,\"seq\":3"),
            Some((Kind::Changed, 3, "record 3 was changed: it is no record any more")),
        ),
        ("one less", |log| drop(log.remove(2)), Some((Kind::Removed, 3, "record 3 is missing before record 4"))),
        (
            "two less",
            |log| drop(log.drain(1..3)),
            Some((Kind::Removed, 2, "records 2 to 3 are missing before record 4")),
        ),
        ("the first less", |log| drop(log.remove(0)), Some((Kind::Removed, 1, "record 1 is missing before record 2"))),
        ("swapped", |log| log.swap(1, 2), Some((Kind::Reordered, 2, "record 3 comes before 2"))),
        ("at the end", |log| log.rotate_left(1), Some((Kind::Removed, 1, "record 1 is missing before record 2"))),
        ("twice", |log| log.insert(2, log[1].clone()), Some((Kind::Repeated, 3, "record 2 is there twice"))),
        ("again", |log| log.insert(3, log[0].clone()), Some((Kind::Reordered, 4, "record 1 comes after 3"))),
        (
            "made anew from there",
            |log| {
                let mut other = self::log(5);
                other[1] = other[1].replace("1.0.2", "6.6.6");
                log[1].clone_from(&other[1]);
            },
            Some((Kind::Changed, 2, "record 2 was changed")),
        ),
        ("the end", |log| log.truncate(3), None),
    ];
    for (what, change, want) in cases {
        let mut lines = log(5);
        change(&mut lines);
        let report = checked(&[("a", &text(&lines))], &[], true);
        let found = report.problem.as_ref().map(|found| {
            let at = found.at.as_ref().unwrap();
            (found.kind, at.line, found.reason.as_str())
        });
        assert_eq!(found, want, "{what}");
        assert_eq!(report.unfinished, [], "{what}");
    }
}

#[test]
fn a_recorded_head_tells_of_the_end() {
    let lines = log(5);
    let heads: Vec<String> = lines.iter().map(|line| hash(line.as_bytes())).collect();
    let whole = checked(&[("a", &text(&lines))], &heads, true);
    let head = Head { seq: 5, hash: heads[4].clone() };
    assert_eq!((whole.records, whole.first, whole.head, whole.problem), (5, Some(1), Some(head), None));
    // Of each head whether the log up to a line has it.
    for count in 0..5 {
        for (number, head) in heads.iter().enumerate() {
            let report = checked(&[("a", &text(&lines[..count]))], std::slice::from_ref(head), true);
            let kind = report.problem.map(|found| found.kind);
            assert_eq!(kind, (number >= count).then_some(Kind::Truncated), "{count} {number}");
        }
    }
    // All made anew, with one change: a chain that is whole, and another one.
    let anew = log(4);
    let report = checked(&[("a", &text(&anew))], &heads[4..], true);
    assert_eq!(report.problem.unwrap().kind, Kind::Truncated);
}

#[test]
fn a_chain_goes_on_over_files() {
    let lines = log(6);
    let (one, two, three) = (text(&lines[..2]), text(&lines[2..4]), text(&lines[4..]));
    let all = [("log.2", one.as_str()), ("log.4", &two), ("log", &three)];
    assert_eq!(checked(&all, &[], true).records, 6);
    let named = files(&[all[2], all[0], all[1], ("empty", "")]);
    assert_eq!(named, ["log.2", "log.4", "log"]);
    // Some of it is enough where some was named, and never without the middle.
    let last = checked(&all[1..], &[], false);
    assert_eq!((last.records, last.first, last.problem), (4, Some(3), None));
    let gap = checked(&[all[0], all[2]], &[], false).problem.unwrap();
    assert_eq!((gap.kind, gap.reason.as_str()), (Kind::Removed, "records 3 to 4 are missing before record 5"));
    assert_eq!(gap.at, Some(At { file: "log".into(), line: 1 }));
    let begin = checked(&all[1..], &[], true).problem.unwrap();
    assert_eq!((begin.kind, begin.reason.as_str()), (Kind::Removed, "records 1 to 2 are missing before record 3"));
}

fn files(all: &[(&str, &str)]) -> Vec<String> {
    let all = all.iter().map(|(name, text)| ((*name).to_owned(), text.as_bytes())).collect();
    crate::audit::files::in_order(all).unwrap().into_iter().map(|(name, _)| name).collect()
}

#[test]
fn what_was_not_finished_is_told_from_what_was_changed() {
    let lines = log(4);
    let half = |line: &str| line[..line.len() / 2].to_owned();
    let at = |line| At { file: "a".into(), line };
    let cases = [
        // Killed while it wrote the third record, which the next one wrote anew.
        ([&lines[..2], &[half(&lines[2])], &lines[2..]].concat(), vec![at(3)], None),
        ([&lines[..2], &[half(&lines[2]), "\0\0\0".into()], &lines[2..]].concat(), vec![at(3)], None),
        ([&[String::new()], &lines[..]].concat(), vec![at(1)], None),
        ([&lines[..], &[half(&lines[3])]].concat(), vec![at(5)], None),
        // Not so: the record is missing.
        ([&lines[..2], &[half(&lines[2])], &lines[3..]].concat(), vec![], Some(at(3))),
    ];
    for (lines, unfinished, problem) in cases {
        let mut text = text(&lines);
        text.pop();
        let report = checked(&[("a", &text)], &[], true);
        assert_eq!((report.unfinished, report.problem.and_then(|found| found.at)), (unfinished, problem), "{text}");
    }
}

#[test]
fn a_line_of_a_gigabyte_takes_no_memory() {
    let lines = log(2);
    let text = text(&lines);
    let (one, two) = text.split_at(lines[0].len() + 1);
    let junk = repeat(b'x').take(1 << 30).chain(&b"\n"[..]);
    let reader = BufReader::new(one.as_bytes().chain(junk).chain(two.as_bytes()));
    let report = check(vec![("a".to_owned(), reader)], &[], true).unwrap();
    assert_eq!((report.records, report.problem), (2, None));
    assert_eq!(report.unfinished, [At { file: "a".into(), line: 2 }]);
}

#[test]
fn nothing_is_a_log_without_records() {
    assert_eq!(checked(&[], &[], true), Report::default());
    assert_eq!(checked(&[("a", "")], &[], true), Report::default());
    let last = r#"{"seq":18446744073709551615,"time":"","user":{"uid":0},"pid":1,"action":"","reference":"","result":"ok","prev":"x"}"#;
    let report = checked(&[("a", &format!("{last}\n{last}\n"))], &[], false);
    assert_eq!(report.problem.unwrap().kind, Kind::Repeated);
}

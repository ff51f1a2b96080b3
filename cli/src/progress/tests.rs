//! What a run looks like on terminals of several widths, and what is said of it elsewhere: on values.

use dssflow_engine::event::Event;
use dssflow_engine::run::view::RunView;
use dssflow_engine::time::Timestamp;
use serde_json::{Value, json};

use super::plain::Plain;
use super::{Undo, live, tree};
use crate::why::tests::view;
use crate::width::width;

const WIDTHS: [usize; 5] = [40, 60, 80, 120, 200];

fn at(seconds: u64) -> Timestamp {
    Timestamp::from_millis(seconds * 1000)
}

/// A run with every state a step can be in, long names, and words that take two columns a letter.
fn busy() -> RunView {
    let error = json!({ "class": "terminal", "code": "AccessDenied", "request_id": "7f3c",
        "message": "ポリシーがありません: arn:aws:iam::123456789012:role/数据库 is not authorized to perform glue:CreateDatabase" });
    let steps = [
        json!({ "step": "install-the-packages-that-everything-else-is-built-with", "group": "Prepare the instance",
                "title": "パッケージをインストールする、すべてのステップに必要です", "started": 0, "ended": 61_000 }),
        json!({ "step": "download", "group": "Prepare the instance", "status": "running", "started": 5_000,
                "expected_ms": 240_000, "expected_by": 3, "heartbeat": { "file": "数据科学工作室-14.2.tar.gz", "bytes": 734_003_200 } }),
        json!({ "step": "cluster", "group": "Create your first cluster", "status": "running", "started": 10_000,
                "expected_ms": 1_200_000, "heartbeat": "waiting for the control plane: CREATING" }),
        json!({ "step": "again", "group": "Create your first cluster", "status": "backoff", "wake": 95_000,
                "error": error.clone() }),
        json!({ "step": "denied", "group": "Setup Athena connections", "status": "failed", "error": error }),
        json!({ "step": "asks", "group": "Use it", "status": "waiting", "title": "Go live",
                "awaits": { "for": "decision", "question": "本番に切り替えてもよいですか、それとも待ちますか?" } }),
        json!({ "step": "left", "group": "Use it", "status": "kept", "kept": "数据 was not made by this run and stays where it is" }),
        json!({ "step": "later", "group": "Use it", "status": "pending" }),
    ];
    view("running", &steps, &json!({ "run": "bootstrap-lab", "created": 0, "updated": 90_000 }))
}

#[test]
fn no_line_of_the_tree_is_wider_than_the_terminal() {
    let view = busy();
    let all = tree::live(&view, &Undo::default(), at(90));
    for columns in WIDTHS {
        let frame = live::frame(&all, (columns, 100));
        assert_eq!(frame.len(), all.len());
        for line in &frame {
            // The last column stays free.
            assert!(width(line) < columns, "{columns}: {} in {line:?}", width(line));
        }
        for line in tree::whole(&view, &Undo::default(), at(90), Some(columns)) {
            assert!(width(&line) <= columns, "{columns}: {} in {line:?}", width(&line));
        }
    }
    let small = live::frame(&all, (80, 6));
    assert_eq!(small, live::frame(&all, (80, 100))[all.len() - 5..], "the end is what is shown");
}

#[test]
fn a_step_under_way_shows_its_time_what_is_usual_and_its_last_sign_of_life() {
    let all = tree::live(&busy(), &Undo::default(), at(90));
    let line = |name: &str| all.iter().find(|line| line.contains(name)).cloned().unwrap_or_default();
    assert_eq!(
        line("download"),
        "    ▸ download  85 s (usually 4 min, measured 3 times)  数据科学工作室-14.2.tar.gz, 700 MiB"
    );
    assert_eq!(
        line("▸ cluster"),
        "    ▸ cluster  80 s (usually 20 min)  waiting for the control plane: CREATING"
    );
    assert!(line("again").starts_with("    ↻ again  next try in 5.0 s  AccessDenied"), "{}", line("again"));
    assert!(line("asks").contains("asks: 本番"), "{}", line("asks"));
    assert_eq!(all.last().unwrap(), "bootstrap-lab running: 1/8 done, 90 s");
    assert!(all.iter().any(|line| line == "✗ Setup Athena connections  0/1"), "{all:#?}");
}

#[test]
fn the_end_loses_no_word_of_an_error_on_a_narrow_terminal() {
    let wide = tree::whole(&busy(), &Undo::default(), at(90), None);
    let narrow = tree::whole(&busy(), &Undo::default(), at(90), Some(40));
    let squeezed = |lines: &[String]| lines.concat().split_whitespace().collect::<String>();
    for part in
        ["is not authorized to perform glue:CreateDatabase (request id 7f3c)", "kept: 数据 was not made"]
    {
        let part: String = part.split_whitespace().collect();
        assert!(squeezed(&wide).contains(&part) && squeezed(&narrow).contains(&part), "{part}: {narrow:#?}");
    }
    assert!(narrow.iter().any(|line| line.starts_with("  ✗ denied")), "{narrow:#?}");
}

fn event(seq: u64, seconds: u64, kind: &str, more: &Value) -> Event {
    let mut whole = json!({ "v": 2, "seq": seq, "at": seconds * 1000, "type": kind });
    for (key, value) in more.as_object().unwrap() {
        whole[key] = value.clone();
    }
    serde_json::from_value(whole).unwrap_or_else(|e| panic!("{kind}: {e}"))
}

#[test]
fn elsewhere_a_running_step_is_heard_of_every_half_minute_and_no_oftener() {
    let running = |heartbeat: &str| {
        let step = |name: &str, begun: u64| {
            json!({ "step": name, "status": "running", "started": begun * 1000, "expected_ms": 240_000,
                    "heartbeat": heartbeat })
        };
        view("running", &[step("slow", 0), step("other", 20)], &json!({}))
    };
    let mut plain = Plain::new("dssflow".to_owned());
    let mut said = Vec::new();
    // Ticks come every second, and a sign of life with each.
    for second in 0..=100 {
        let view = running(&format!("{second} of 100"));
        said.extend(plain.tick(&view, &Undo::default(), at(second)));
    }
    let of = |name: &str| said.iter().filter(|line| line.contains(name)).cloned().collect::<Vec<_>>();
    assert_eq!(
        of("slow"),
        [
            "00:00:30Z  slow  still running, 30 s (usually 4 min): 30 of 100",
            "00:01:00Z  slow  still running, 60 s (usually 4 min): 60 of 100",
            "00:01:30Z  slow  still running, 90 s (usually 4 min): 90 of 100",
        ]
    );
    assert_eq!(of("other").len(), 2, "{said:#?}");
    assert_eq!(said.len(), 5, "nothing else: {said:#?}");
}

#[test]
fn elsewhere_each_change_of_a_state_is_one_line() {
    let mut plain = Plain::new("dssflow".to_owned());
    let mut view =
        view("running", &[json!({ "step": "copy", "title": "Copy\nit", "status": "ready" })], &json!({}));
    plain.tick(&view, &Undo::default(), at(0));
    let started = json!({ "step": "copy", "attempt": 1, "phase": "execute", "generation": 1, "effect": "create", "probed": false });
    let lines = [
        event(1, 1, "attempt_started", &started),
        event(2, 2, "heartbeat_recorded", &json!({ "step": "copy", "attempt": 1, "details": "half" })),
        event(3, 35, "attempt_succeeded", &json!({ "step": "copy", "attempt": 1, "output": null })),
    ]
    .iter()
    .map(|event| plain.line(event))
    .collect::<Vec<_>>();
    assert_eq!(
        lines,
        [
            Some("00:00:01Z  copy  started: Copy it".to_owned()),
            None,
            Some("00:00:35Z  copy  done (34 s)".to_owned()),
        ]
    );
    view.steps[0].status = dssflow_engine::run::StepStatus::Succeeded;
    assert!(plain.tick(&view, &Undo::default(), at(500)).is_empty(), "what is done is not running");
}

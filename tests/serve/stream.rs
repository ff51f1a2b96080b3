//! Events as they come, to clients that drop, come back, and find another server.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::daemon::PATIENCE;
use crate::support::Home;
use crate::through::until;
use crate::web::{Web, serve_http};

/// How often the client drops at least.
const DROPS: usize = 100;

/// A stream of server-sent events.
struct Stream {
    lines: BufReader<TcpStream>,
    status: u16,
}

#[derive(Debug, Default)]
struct Sent {
    id: Option<u64>,
    event: String,
    data: String,
}

impl Stream {
    /// Connects as a browser does that comes back; nothing when nobody listens.
    fn open(web: &Web, run: &str, last: Option<u64>) -> Option<Self> {
        let mut stream = TcpStream::connect(&web.address).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).ok()?;
        let last = last.map_or_else(String::new, |last| format!("last-event-id: {last}\r\n"));
        let text = format!(
            "GET /v1/runs/{run}/events HTTP/1.0\r\nhost: {}\r\n{}\r\naccept: text/event-stream\r\n{last}\r\n",
            web.address,
            web.bearer()
        );
        stream.write_all(text.as_bytes()).ok()?;
        let mut lines = BufReader::new(stream);
        let mut line = String::new();
        lines.read_line(&mut line).ok()?;
        let status = line.split_whitespace().nth(1)?.parse().ok()?;
        // HTTP/1.0, so that the body is not in chunks.
        while !line.trim().is_empty() {
            line.clear();
            lines.read_line(&mut line).ok()?;
        }
        Some(Self { lines, status })
    }

    /// The next one; nothing when the stream is over.
    fn next(&mut self) -> Option<Sent> {
        let mut sent = Sent::default();
        loop {
            let mut line = String::new();
            if self.lines.read_line(&mut line).ok()? == 0 {
                return None;
            }
            let line = line.trim_end_matches(['\r', '\n']);
            if line.is_empty() {
                if !sent.data.is_empty() {
                    return Some(sent);
                }
                continue;
            }
            match line.split_once(": ") {
                Some(("id", id)) => sent.id = id.parse().ok(),
                Some(("event", event)) => event.clone_into(&mut sent.event),
                Some(("data", data)) => sent.data.push_str(data),
                // What keeps it alive.
                _ => assert!(line.starts_with(':'), "{line:?}"),
            }
        }
    }
}

#[test]
fn a_client_that_drops_a_hundred_times_sees_every_event_once() {
    let home = Home::with_sandbox();
    let (daemon, mut web) = serve_http(&home);
    let mut daemon = Some(daemon);
    home.run(&["run", "bootstrap", "--sandbox", "--detach"]).expect(3);
    let run = "bootstrap-sandbox";
    let mut seen: BTreeMap<u64, String> = BTreeMap::new();
    let (mut drops, mut last, mut ended) = (0, None, false);
    let begin = Instant::now();
    while !ended {
        assert!(begin.elapsed() < PATIENCE * 2, "{drops} drops, {} events", seen.len());
        if drops == DROPS / 2 {
            // Another server, at another address: the run goes on there, and so does the client.
            let _killed = daemon.take().map(crate::daemon::Daemon::kill);
            let (other, there) = serve_http(&home);
            (daemon, web) = (Some(other), there);
        }
        let Some(mut stream) = Stream::open(&web, run, last) else { continue };
        if stream.status == 204 {
            // It had just seen the last event, and is told that nothing comes after.
            ended = true;
            continue;
        }
        assert_eq!(stream.status, 200);
        for _ in 0..=drops % 4 {
            let Some(sent) = stream.next() else { break };
            if sent.event == "end" {
                ended = true;
                break;
            }
            let id = sent.id.expect("an event has a number");
            assert!(seen.insert(id, sent.data).is_none(), "event {id} came twice");
            last = Some(id);
        }
        drops += 1;
    }
    assert!(drops >= DROPS, "{drops} drops were too few for a history of {} events", seen.len());
    until(&home, run, "succeeded");
    let all = home.json(&["runs", "events", run, "-o", "json"]);
    let all = all.as_array().expect("a list");
    assert_eq!(seen.len(), all.len());
    for (event, (id, data)) in all.iter().zip(&seen) {
        assert_eq!(event["seq"].as_u64(), Some(*id));
        assert_eq!(*event, serde_json::from_str::<Value>(data).expect("JSON"), "event {id}");
    }
    // A browser that comes back after the end is told to stop.
    let over = Stream::open(&web, run, last).expect("it listens");
    assert_eq!(over.status, 204);
    println!("sse: drops={drops} events={} restarts=1 seconds={}", seen.len(), begin.elapsed().as_secs());
}

#[test]
fn a_run_that_is_paused_is_followed_on() {
    let home = Home::with_sandbox();
    let (_daemon, web) = serve_http(&home);
    home.faults(&serde_json::json!([{ "target": "aws", "op": "glue:CreateDatabase", "action": "hang" }]));
    home.run(&["run", "bootstrap", "--sandbox", "--detach"]).expect(3);
    let mut stream = Stream::open(&web, "bootstrap-sandbox", None).expect("it listens");
    let is = |sent: &Sent, kind: &str| sent.data.contains(&format!("\"type\":\"{kind}\""));
    let first = stream.next().expect("the first event");
    assert!(is(&first, "run_created"), "{first:?}");
    home.run(&["pause", "bootstrap-sandbox"]).expect(0);
    while !is(&stream.next().expect("more events"), "run_paused") {}
    // Nothing comes meanwhile, and the stream stays.
    std::thread::sleep(Duration::from_millis(1500));
    home.faults(&serde_json::json!([]));
    home.run(&["resume", "bootstrap-sandbox"]).expect(0);
    let mut kinds = Vec::new();
    while let Some(sent) = stream.next() {
        if sent.event == "end" {
            assert!(sent.data.contains("bootstrap-sandbox"), "{sent:?}");
            kinds.push("end".to_owned());
            break;
        }
        kinds.push(sent.data);
    }
    assert!(kinds.iter().any(|data| data.contains("\"type\":\"run_resumed\"")));
    assert_eq!(kinds.last().map(String::as_str), Some("end"));
}

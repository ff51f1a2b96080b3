//! The HTTP API from outside: off unless asked for, nothing without the token, nothing for the wrong host, nothing that
//! brings it down.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::Home;
use crate::web::{Answer, Web, serve_http};

/// The description in the docs, which is that of the routes.
fn document() -> Value {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/reference/openapi.json");
    serde_json::from_str(&std::fs::read_to_string(path).expect("it is part of the docs")).expect("JSON")
}

/// Every route with a path that names something.
fn routes() -> Vec<(String, String)> {
    let document = document();
    let paths = document["paths"].as_object().expect("paths").clone();
    let mut routes = Vec::new();
    for (path, operations) in paths {
        let path = path
            .replace("{run}", "a-run")
            .replace("{workflow}", "bootstrap")
            .replace("{schedule}", "a-schedule");
        assert!(!path.contains('{'), "{path}: name what stands in the braces");
        routes.extend(
            operations.as_object().expect("operations").keys().map(|m| (m.to_uppercase(), path.clone())),
        );
    }
    assert!(routes.len() > 20, "{routes:?}");
    routes
}

#[track_caller]
fn assert_guarded(answer: &Answer) {
    for header in [
        "x-content-type-options: nosniff",
        "content-security-policy: default-src 'none'",
        "cache-control: no-store",
        "x-frame-options: deny",
    ] {
        assert!(answer.head.contains(header), "{header} is not in {answer:?}");
    }
    assert!(!answer.head.contains("access-control-"), "no page of another origin is let in: {answer:?}");
}

#[test]
fn no_route_answers_without_the_token() {
    let home = Home::new();
    let (daemon, web) = serve_http(&home);
    let token = web.token.clone();
    let shown: Vec<String> = vec![
        String::new(),
        "authorization: Bearer".to_owned(),
        format!("authorization: Bearer {}", "0".repeat(64)),
        format!("authorization: Bearer {}", &token[..63]),
        format!("authorization: Bearer {token}0"),
        format!("authorization: Bearer {}", token.to_uppercase()),
        format!("authorization: Basic {token}"),
        format!("authorization: {token}"),
        format!("x-authorization: Bearer {token}"),
        format!("cookie: token={token}"),
    ];
    let mut all = routes();
    all.extend(
        [("GET", "/"), ("GET", "/nowhere"), ("OPTIONS", "/v1/runs")]
            .map(|(m, p)| (m.to_owned(), p.to_owned())),
    );
    for (method, path) in &all {
        // In the path it is no token either, and would stand in logs.
        for (shown, path) in shown
            .iter()
            .map(|shown| (shown.as_str(), path.clone()))
            .chain([("", format!("{path}?token={token}&access_token={token}"))])
        {
            let headers: Vec<&str> = if shown.is_empty() { vec![] } else { vec![shown] };
            let answer = web.call(method, &path, &headers, "");
            assert_eq!(answer.status, 401, "{method} {path} with {shown:?}: {answer:?}");
            assert!(answer.head.contains("www-authenticate: bearer"), "{answer:?}");
            assert_guarded(&answer);
            let refusal: Value = serde_json::from_str(&answer.body).expect("JSON");
            assert_eq!(refusal["code"], "DF0063");
        }
    }
    // With it they do.
    let health = web.get("/v1/health");
    assert_eq!(health.status, 200, "{health:?}");
    assert_guarded(&health);
    assert_eq!(web.json("/v1/openapi.json"), document(), "what is served is what the docs have");
    let metrics = web.get("/metrics");
    assert!(metrics.status == 200 && metrics.body.contains("dssflow_runs_driven 0"), "{metrics:?}");
    // Nothing of it stands in what the daemon says.
    assert!(!daemon.said().contains(&token), "the token is printed");
    assert!(daemon.said().contains("control.token"), "{}", daemon.said());
    let mode = std::fs::metadata(home.store().join("control.token")).expect("a file").permissions().mode();
    assert_eq!(mode & 0o7777, 0o600);
}

#[test]
fn it_listens_only_when_asked_and_only_on_this_machine() {
    let home = Home::new();
    let daemon = crate::through::serve(&home);
    assert_eq!(daemon.get("/v1/health").expect("it answers")["listens"], Value::Null);
    assert!(!home.store().join("control.token").exists());
    assert_eq!(daemon.stop().0, Some(0));
    for address in ["0.0.0.0:0", "[::]:0", "192.0.2.1:7477"] {
        let ran = home.run(&["serve", "--listen", address]).expect(64).says("DF0061");
        assert!(ran.stderr.contains("TLS") && ran.stderr.contains("ssh"), "{}", ran.stderr);
    }
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("a port").to_string();
    home.run(&["serve", "--listen", &address]).expect(64).says("DF0061");
    let token = home.store().join("control.token");
    std::fs::write(&token, "ab".repeat(32)).expect("a file of ours");
    std::fs::set_permissions(&token, std::fs::Permissions::from_mode(0o644)).expect("a file of ours");
    home.run(&["serve", "--listen", "127.0.0.1:0"]).expect(64).says("DF0062").says("0644");
    // What it refused to do left nothing behind.
    home.run(&["runs", "ls"]).expect(0);
}

/// A request that means no good, and what it may be answered with; nothing but a closed connection is always good.
struct Hostile {
    what: String,
    bytes: Vec<u8>,
    may: &'static [u16],
}

#[expect(clippy::too_many_lines, reason = "a list")]
fn hostile(web: &Web) -> Vec<Hostile> {
    const REFUSED: &[u16] = &[400, 401, 403, 404, 405, 408, 411, 413, 414, 415, 417, 421, 422, 431];
    let mut all = Vec::new();
    let (address, bearer) = (&web.address, web.bearer());
    let mut add = |what: &str, bytes: Vec<u8>, may: &'static [u16]| {
        all.push(Hostile { what: what.to_owned(), bytes, may });
    };
    let port = address.rsplit(':').next().expect("a port");
    // Other hosts: a name that was pointed here, no port, another port, none, two.
    for host in [
        "evil.example.com".to_owned(),
        format!("evil.example.com:{port}"),
        "127.0.0.1".to_owned(),
        "localhost".to_owned(),
        "127.0.0.1:1".to_owned(),
        format!("127.0.0.1.nip.io:{port}"),
        format!("localhost.evil.com:{port}"),
        format!("0.0.0.0:{port}"),
        format!("[::ffff:127.0.0.1]:{port}"),
        format!("127.1:{port}"),
        format!("2130706433:{port}"),
        "runs.example.com:443".to_owned(),
        "runs.example.com.".to_owned(),
        format!(" {address} x"),
        format!("{address},evil"),
        format!("user@{address}"),
        String::new(),
    ] {
        let text = format!("GET /v1/runs HTTP/1.1\r\nhost: {host}\r\n{bearer}\r\nconnection: close\r\n\r\n");
        add(&format!("host {host:?}"), text.into_bytes(), &[400, 421]);
    }
    add(
        "no host",
        format!("GET /v1/runs HTTP/1.1\r\n{bearer}\r\nconnection: close\r\n\r\n").into_bytes(),
        &[400, 421],
    );
    add(
        "two hosts",
        format!(
            "GET /v1/runs HTTP/1.1\r\nhost: {address}\r\nhost: evil\r\n{bearer}\r\nconnection: close\r\n\r\n"
        )
        .into_bytes(),
        &[400, 421],
    );
    add(
        "a host in the line that is another one",
        format!("GET http://evil.example.com/v1/runs HTTP/1.1\r\nhost: {address}\r\n{bearer}\r\nconnection: close\r\n\r\n")
            .into_bytes(),
        &[400, 421],
    );
    add(
        "a proxy's request",
        format!("CONNECT {address} HTTP/1.1\r\nhost: {address}\r\n{bearer}\r\nconnection: close\r\n\r\n")
            .into_bytes(),
        REFUSED,
    );
    // Pages of other origins.
    for origin in [
        "http://evil.example.com".to_owned(),
        "null".to_owned(),
        "https://127.0.0.1".to_owned(),
        format!("https://{address}"),
        format!("http://{address}.evil.com"),
        format!("http://{address}/"),
        "file://".to_owned(),
    ] {
        let text = format!(
            "POST /v1/store/prune HTTP/1.1\r\nhost: {address}\r\norigin: {origin}\r\n{bearer}\r\nconnection: close\r\n\
             content-type: text/plain\r\ncontent-length: 2\r\n\r\n{{}}"
        );
        add(&format!("origin {origin:?}"), text.into_bytes(), &[403]);
    }
    let cross = format!(
        "GET /v1/runs HTTP/1.1\r\nhost: {address}\r\nsec-fetch-site: cross-site\r\n{bearer}\r\nconnection: close\r\n\r\n"
    );
    add("a page's picture", cross.into_bytes(), &[403]);
    add(
        "a preflight of a page",
        format!(
            "OPTIONS /v1/runs HTTP/1.1\r\nhost: {address}\r\norigin: http://evil.example.com\r\n\
             access-control-request-method: POST\r\nconnection: close\r\n\r\n"
        )
        .into_bytes(),
        &[403],
    );
    add(
        "two tokens",
        format!(
            "GET /v1/runs HTTP/1.1\r\nhost: {address}\r\n{bearer}\r\n{bearer}\r\nconnection: close\r\n\r\n"
        )
        .into_bytes(),
        &[400],
    );
    // With the token, but wrong all the same. `line` is the first line, `rest` what comes after the token.
    let mut with = |what: &str, line: &str, rest: &str, may: &'static [u16]| {
        let text = format!("{line}\r\nhost: {address}\r\n{bearer}\r\nconnection: close\r\n{rest}");
        all.push(Hostile { what: what.to_owned(), bytes: text.into_bytes(), may });
    };
    for path in [
        "/v1/../v1/runs",
        "/v1/runs/../../etc/passwd",
        "/v1/runs/..%2f..%2fetc%2fpasswd",
        "/v1/runs/%2e%2e%2f%2e%2e",
        "/v1/runs/%00",
        "/v1/runs/a%0d%0aset-cookie:x",
        "/v1/runs/%ff%fe",
        "/v1/runs/A",
        "/v1/runs/%",
        "//v1/runs",
        "/v1//runs",
        "/v1/runs/",
        "/V1/runs",
        "/v1/runs;x=1/y",
        "/v1/runs/a-run/logs/..%2f..%2f..%2fcontrol.token",
        "/v1/workflows/..%2f..%2fsite/schema",
        "/v1/runs?limit=-1",
        "/v1/runs?limit=99999999999999999999",
        "/v1/runs?labels=[1]",
        "/v1/runs?labels=%7B",
        "/v1/runs?status=no",
        "/v1/runs?unknown=1",
        "/v1/runs?from=-5",
        "/v1/runs/a-run/events?after=x",
        "/v1/runs/a-run/events?follow=9999",
        "/v1/store/archive?run=../../x",
    ] {
        with(&format!("path {path}"), &format!("GET {path} HTTP/1.1"), "\r\n", REFUSED);
    }
    with("a path of 60 KB", &format!("GET /{} HTTP/1.1", "a".repeat(60_000)), "\r\n", REFUSED);
    with("a control character in the line", "GET /v1/\x07runs HTTP/1.1", "\r\n", REFUSED);
    with("a blank in the line", "GET /v1/ runs HTTP/1.1", "\r\n", REFUSED);
    with("another protocol", "GET /v1/runs HTTP/3.7", "\r\n", REFUSED);
    with("HTTP/2 without more ado", "PRI * HTTP/2.0", "\r\nSM\r\n\r\n", REFUSED);
    for method in ["DELETE", "PUT", "PATCH", "TRACE", "BREW", "get"] {
        with(&format!("method {method}"), &format!("{method} /v1/runs HTTP/1.1"), "\r\n", REFUSED);
    }
    with("a star", "OPTIONS * HTTP/1.1", "\r\n", REFUSED);
    // Heads.
    with(
        "a header of 100 KB",
        "GET /v1/runs HTTP/1.1",
        &format!("x: {}\r\n\r\n", "a".repeat(100_000)),
        REFUSED,
    );
    with("a thousand headers", "GET /v1/runs HTTP/1.1", &format!("{}\r\n", "x: y\r\n".repeat(1000)), REFUSED);
    with("a header without a name", "GET /v1/runs HTTP/1.1", ": x\r\n\r\n", REFUSED);
    with("a folded header", "GET /v1/runs HTTP/1.1", "x: a\r\n b\r\n\r\n", REFUSED);
    with("a control character in a header", "GET /v1/runs HTTP/1.1", "x: a\x00b\r\n\r\n", REFUSED);
    with("a bare carriage return", "GET /v1/runs HTTP/1.1", "x: a\rb\r\n\r\n", REFUSED);
    with(
        "a last event that is none",
        "GET /v1/runs/a-run/events HTTP/1.1",
        "accept: text/event-stream\r\nlast-event-id: -1\r\n\r\n",
        REFUSED,
    );
    // Bodies.
    for (what, body) in [
        ("no JSON", "{"),
        ("an empty body", ""),
        ("another type", "[]"),
        ("a number", "1e999999"),
        ("a text that ends early", "\"\\ud800"),
        ("an unknown key", "{\"hurry\":true}"),
        ("a step that is none", "{\"verb\":\"skip\",\"step\":\"../..\",\"by\":\"x\"}"),
        ("a verb that is none", "{\"verb\":\"explode\",\"by\":\"x\"}"),
    ] {
        for path in ["/v1/runs/a-run/act", "/v1/runs/a-run/pause", "/v1/runs", "/v1/store/prune"] {
            let rest =
                format!("content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}", body.len());
            with(
                &format!("{what} to {path}"),
                &format!("POST {path} HTTP/1.1"),
                &rest,
                &[400, 404, 409, 413, 415],
            );
        }
    }
    let deep = format!("{}{}", "[".repeat(30_000), "]".repeat(30_000));
    let rest = format!("content-type: application/json\r\ncontent-length: {}\r\n\r\n{deep}", deep.len());
    with("lists in lists", "POST /v1/runs/a-run/pause HTTP/1.1", &rest, &[400, 413]);
    let rest = "content-type: application/json\r\ncontent-length: 99999999999\r\n\r\n{}";
    with("a body that is said to be huge", "POST /v1/runs HTTP/1.1", rest, &[400, 413]);
    let large = "x".repeat(200_000);
    let rest = format!("content-type: application/json\r\ncontent-length: {}\r\n\r\n{large}", large.len());
    with("a body over the limit", "POST /v1/runs/a-run/pause HTTP/1.1", &rest, &[400, 413]);
    with(
        "a form",
        "POST /v1/runs HTTP/1.1",
        "content-type: application/x-www-form-urlencoded\r\ncontent-length: 3\r\n\r\na=b",
        &[415],
    );
    // Requests of which one reader sees one and another two.
    let hidden = "GET /v1/runs HTTP/1.1\r\nhost: x\r\n\r\n";
    for (what, rest) in [
        (
            "length and chunks",
            format!("content-length: 4\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n{hidden}"),
        ),
        (
            "chunks and length",
            format!("transfer-encoding: chunked\r\ncontent-length: 4\r\n\r\n0\r\n\r\n{hidden}"),
        ),
        ("two lengths", format!("content-length: 0\r\ncontent-length: 4\r\n\r\n{hidden}")),
        ("a length with a sign", format!("content-length: +0\r\n\r\n{hidden}")),
        ("a length that is none", format!("content-length: 0x0\r\n\r\n{hidden}")),
        (
            "chunks that are not the last",
            format!("transfer-encoding: chunked, identity\r\n\r\n0\r\n\r\n{hidden}"),
        ),
        ("chunks with a blank", format!("transfer-encoding : chunked\r\n\r\n0\r\n\r\n{hidden}")),
        ("other chunks", format!("transfer-encoding: xchunked\r\n\r\n0\r\n\r\n{hidden}")),
        ("a chunk of no size", "transfer-encoding: chunked\r\n\r\nzz\r\nx\r\n0\r\n\r\n".to_owned()),
        ("a chunk beyond all bounds", "transfer-encoding: chunked\r\n\r\nffffffffffffffffff\r\nx".to_owned()),
    ] {
        let rest = format!("content-type: application/json\r\n{rest}");
        with(what, "POST /v1/runs/a-run/pause HTTP/1.1", &rest, REFUSED);
    }
    // No HTTP at all.
    for (what, bytes) in [
        ("noise", (0..=255).cycle().take(10_000).collect::<Vec<u8>>()),
        ("zeros", vec![0; 10_000]),
        ("TLS", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".repeat(20)),
        ("line ends", b"\r\n".repeat(5_000)),
        ("HTTP/0.9", b"GET /v1/runs\r\n\r\n".to_vec()),
    ] {
        all.push(Hostile { what: what.to_owned(), bytes, may: REFUSED });
    }
    all
}

#[test]
fn hostile_requests_get_nothing_and_the_server_lives() {
    let home = Home::new();
    let (daemon, web) = serve_http(&home);
    let all = hostile(&web);
    assert!(all.len() >= 60, "{}", all.len());
    let mut answers = std::collections::BTreeMap::<u16, usize>::new();
    for Hostile { what, bytes, may } in &all {
        let answer = web.send(bytes);
        assert!(answer.status == 0 || may.contains(&answer.status), "{what}: {answer:?}");
        assert!(!answer.body.contains("\"runs\"") && !answer.body.contains(&web.token), "{what}: {answer:?}");
        // One request, one answer: nothing that was hidden behind it is answered.
        assert!(!answer.body.contains("HTTP/1.1"), "{what}: {answer:?}");
        *answers.entry(answer.status).or_default() += 1;
    }
    assert_eq!(web.get("/v1/health").status, 200, "it is alive");
    println!("http: hostile={} answers={answers:?}", all.len());
    assert_eq!(daemon.stop().0, Some(0));
}

#[test]
fn slow_clients_and_crowds_are_let_go() {
    let home = Home::new();
    let (daemon, web) = serve_http(&home);
    // A hundred that never come to the end of what they say, most without ever having shown a token.
    let begin = Instant::now();
    let mut slow: Vec<TcpStream> = (0..100)
        .map(|n| {
            let mut stream = TcpStream::connect(&web.address).expect("it listens");
            let text = match n % 3 {
                0 => "G".to_owned(),
                1 => format!("GET /v1/runs HTTP/1.1\r\nhost: {}\r\n", web.address),
                _ => format!(
                    "POST /v1/runs/x/pause HTTP/1.1\r\nhost: {}\r\ncontent-type: application/json\r\ncontent-length: 50\r\n\r\n{{",
                    web.address
                ),
            };
            stream.write_all(text.as_bytes()).expect("it reads");
            stream
        })
        .collect();
    // Others are answered meanwhile.
    assert_eq!(web.get("/v1/health").status, 200);
    // More than there are places for: who comes last waits until the slow ones are let go.
    let crowd: Vec<TcpStream> =
        (0..100).map(|_| TcpStream::connect(&web.address).expect("it listens")).collect();
    assert_eq!(web.get("/v1/health").status, 200, "after {:?}", begin.elapsed());
    for stream in &mut slow {
        stream.set_read_timeout(Some(Duration::from_mins(2))).expect("a socket");
        let mut rest = Vec::new();
        // Closed, with an answer or without.
        drop(stream.read_to_end(&mut rest));
        let text = String::from_utf8_lossy(&rest);
        assert!(text.is_empty() || text.contains(" 401 ") || text.contains(" 408 "), "{text}");
    }
    drop(crowd);
    assert_eq!(web.get("/v1/health").status, 200);
    assert_eq!(daemon.stop().0, Some(0));
}

#[test]
fn other_names_are_served_when_they_are_allowed() {
    let home = Home::new();
    let (_daemon, web) = serve_http(&home);
    let port = web.address.rsplit(':').next().expect("a port").to_owned();
    for (host, origin, status) in [
        (web.address.clone(), None, 200),
        (format!("localhost:{port}"), None, 200),
        (format!("LOCALHOST:{port}"), None, 200),
        ("runs.example.com".to_owned(), None, 200),
        ("Runs.Example.com".to_owned(), Some("https://runs.example.com"), 200),
        ("runs.example.com".to_owned(), Some("http://runs.example.com"), 403),
        (web.address.clone(), Some("https://other.example.com"), 403),
    ] {
        let origin = origin.map_or_else(String::new, |origin| format!("origin: {origin}\r\n"));
        let text = format!(
            "GET /v1/health HTTP/1.1\r\nhost: {host}\r\n{origin}{}\r\nconnection: close\r\n\r\n",
            web.bearer()
        );
        let answer = web.send(text.as_bytes());
        assert_eq!(answer.status, status, "{host} {origin}: {answer:?}");
    }
}

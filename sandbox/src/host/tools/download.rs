//! `curl`, from loopback only, and `unzip`.

use std::fs::File;
use std::io::{Read, Write};

use super::super::{Call, Refusal, ToolResult, admin, refuse, zip};

/// Fetches a small file: status and body.
pub(super) fn fetch(url: &str) -> Result<(u16, Vec<u8>), Refusal> {
    if !url.starts_with("http://127.0.0.1:") {
        return refuse(6, format!("curl: (6) Could not resolve host: {url} (the sandbox has no network)"));
    }
    let mut reply = admin::request("GET", url, &[], &[])?;
    let mut body = Vec::new();
    reply.body.read_to_end(&mut body)?;
    Ok((reply.status, body))
}

/// The URL among the arguments, or in a `url = "..."` line on stdin with `-K -`.
fn url_of(call: &Call) -> Option<String> {
    if call.option(&["-K", "--config"]) == Some("-") {
        let text = String::from_utf8(super::super::read_stdin()).ok()?;
        let line = text.lines().find_map(|l| l.trim().strip_prefix("url"))?;
        return Some(line.trim_start_matches([' ', '=']).trim().trim_matches('"').to_owned());
    }
    call.args().into_iter().find(|a| a.contains("://")).map(str::to_owned)
}

/// `curl -fsSL [-C -] [-o FILE] URL`
pub(super) fn curl(call: &mut Call) -> ToolResult {
    let Some(url) = url_of(call) else {
        return refuse(2, "curl: no URL specified!");
    };
    if !url.starts_with("http://127.0.0.1:") {
        return refuse(6, "curl: (6) Could not resolve host (the sandbox has no network)");
    }
    let output = call.option(&["-o", "--output"]).map(|path| call.root.map(path));
    let resume = call.option(&["-C", "--continue-at"]) == Some("-");
    let have = output.as_ref().filter(|_| resume).and_then(|p| p.metadata().ok()).map_or(0, |m| m.len());
    let headers = if have > 0 { vec![format!("Range: bytes={have}-")] } else { Vec::new() };
    let mut reply = match admin::request("GET", &url, &headers, &[]) {
        Ok(reply) => reply,
        Err(error) => return refuse(7, format!("curl: (7) Failed to connect: {error}")),
    };
    match reply.status {
        200 | 206 => {}
        416 => return refuse(22, "curl: (22) The requested URL returned error: 416"),
        status => return refuse(22, format!("curl: (22) The requested URL returned error: {status}")),
    }
    call.work(0.2);
    let mut received = 0;
    if let Some(path) = &output {
        let append = reply.status == 206;
        let mut options = File::options();
        let mut file = options.create(true).write(true).append(append).truncate(!append).open(path)?;
        received += std::io::copy(&mut reply.body, &mut file)?;
        file.flush()?;
    } else {
        let mut body = Vec::new();
        received += u64::try_from(reply.body.read_to_end(&mut body)?).expect("a length fits 64 bits");
        call.out.extend(body);
    }
    if reply.length.is_some_and(|length| length != received) {
        return refuse(18, "curl: (18) transfer closed with outstanding read data remaining");
    }
    Ok(0)
}

/// `unzip [-q] [-o] FILE -d DIR`
pub(super) fn unzip(call: &mut Call) -> ToolResult {
    use std::os::unix::fs::PermissionsExt;
    let Some(dir) = call.option(&["-d"]).map(str::to_owned) else {
        return refuse(10, "unzip: -d is needed here");
    };
    let file = call.args().into_iter().find(|a| !a.starts_with('-') && *a != dir).map(str::to_owned);
    let file = file.unwrap_or_default();
    let Ok(bytes) = std::fs::read(call.root.map(&file)) else {
        return refuse(9, format!("unzip:  cannot find or open {file}"));
    };
    for entry in zip::read(&bytes)? {
        let path = format!("{dir}/{}", entry.name);
        call.root.write(&path, &entry.data)?;
        std::fs::set_permissions(call.root.map(&path), std::fs::Permissions::from_mode(entry.mode & 0o777))?;
    }
    Ok(0)
}

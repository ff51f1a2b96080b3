//! `systemctl`: units are files, running ones have a file below `/run`. A `dataiku` unit starts and stops the fake DSS.

use serde_json::json;

use super::super::{Call, ToolResult, admin, refuse};

const UNITS: [&str; 2] = ["/etc/systemd/system", "/usr/lib/systemd/system"];
const WANTS: &str = "/etc/systemd/system/multi-user.target.wants";

/// `systemctl VERB UNIT...`
pub(super) fn systemctl(call: &mut Call) -> ToolResult {
    let mut words = call.args().into_iter().filter(|a| !a.starts_with('-')).map(str::to_owned);
    let verb = words.next().unwrap_or_default();
    let units: Vec<String> = words.collect();
    let now = call.has("--now");
    let reads = matches!(verb.as_str(), "is-active" | "is-enabled" | "status" | "show" | "cat");
    if !reads && !call.is_root() {
        return refuse(1, "Failed to connect to bus: Interactive authentication required.");
    }
    if verb == "daemon-reload" {
        return Ok(0);
    }
    let mut status = 0;
    for unit in units {
        let unit =
            if unit.contains('.') && unit.ends_with(".service") { unit } else { format!("{unit}.service") };
        status = one(call, &verb, &unit, now)?;
    }
    Ok(status)
}

fn unit_file(call: &Call, unit: &str) -> Option<String> {
    UNITS.iter().find_map(|dir| call.root.read(&format!("{dir}/{unit}")))
}

fn one(call: &mut Call, verb: &str, unit: &str, now: bool) -> ToolResult {
    let file = unit_file(call, unit);
    let active = call.root.is_active(unit);
    let wants = format!("{WANTS}/{unit}");
    let quiet = call.has("-q") || call.has("--quiet");
    match verb {
        "is-active" => {
            if !quiet {
                call.print(if active { "active" } else { "inactive" });
            }
            return Ok(if active { 0 } else { 3 });
        }
        "is-enabled" => {
            let Some(_) = file else {
                return refuse(
                    1,
                    format!("Failed to get unit file state for {unit}: No such file or directory"),
                );
            };
            let enabled = call.root.exists(&wants);
            if !quiet {
                call.print(if enabled { "enabled" } else { "disabled" });
            }
            return Ok(u8::from(!enabled));
        }
        _ => {}
    }
    let Some(file) = file else {
        let code = if verb == "stop" || verb == "start" { 5 } else { 1 };
        return refuse(code, format!("Failed to {verb} {unit}: Unit {unit} not found."));
    };
    match verb {
        "enable" => {
            call.root.write(&wants, unit)?;
            if now { start(call, unit, &file) } else { Ok(0) }
        }
        "disable" => {
            call.root.remove(&wants);
            if now && active { stop(call, unit, &file) } else { Ok(0) }
        }
        "start" => start(call, unit, &file),
        "stop" => stop(call, unit, &file),
        "restart" => {
            if active {
                stop(call, unit, &file)?;
            }
            start(call, unit, &file)
        }
        "status" => {
            call.print(format!("{unit} is {}", if active { "active (running)" } else { "inactive (dead)" }));
            Ok(if active { 0 } else { 3 })
        }
        other => refuse(1, format!("Unknown command verb {other}.")),
    }
}

/// `Environment=DIP_HOME=DIR` of a unit of DSS.
fn data_dir(file: &str) -> Option<String> {
    file.lines().find_map(|l| l.strip_prefix("Environment=DIP_HOME=")).map(str::to_owned)
}

fn start(call: &mut Call, unit: &str, file: &str) -> ToolResult {
    if let Some(dir) = data_dir(file) {
        if call.root.is_active(unit) {
            return Ok(0);
        }
        let Some(port) = super::dss::port_of(call, &dir) else {
            return refuse(
                1,
                format!("Job for {unit} failed because the control process exited with error code."),
            );
        };
        call.work(1.0);
        admin::call(&call.config, "POST", "/dss/start", &json!({"data_dir": dir, "port": port}))?;
    }
    call.root.write(&format!("/run/systemd/active/{unit}"), "")?;
    Ok(0)
}

fn stop(call: &mut Call, unit: &str, file: &str) -> ToolResult {
    if data_dir(file).is_some() && call.root.is_active(unit) {
        call.work(0.3);
        admin::call(&call.config, "POST", "/dss/stop", &json!({}))?;
    }
    call.root.remove(&format!("/run/systemd/active/{unit}"));
    Ok(0)
}

//! What must fit together in a site: references, names, combinations that DSS or AWS cannot serve. Works on the
//! JSON that the shape check made, so that it also speaks about a file that has a wrong key elsewhere; what is
//! not there is not spoken of.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::shape::{below, nearest};
use super::{SiteProblem, codes};
use crate::bootstrap::overlay;

/// Groups every DSS has from the start.
const BUILT_IN_GROUPS: [&str; 3] = ["administrators", "data_team", "readers"];

/// Adds what does not fit together to `problems`.
pub(super) fn check(site: &Value, lines: &BTreeMap<String, u32>, problems: &mut Vec<SiteProblem>) {
    let mut rules = Rules { site, lines, problems };
    rules.credentials();
    rules.host();
    rules.dss();
    rules.connections();
    rules.names();
    rules.plugin();
    rules.cluster();
    rules.overlays();
    rules.verify();
}

struct Rules<'a> {
    site: &'a Value,
    lines: &'a BTreeMap<String, u32>,
    problems: &'a mut Vec<SiteProblem>,
}

fn items(value: &Value) -> impl Iterator<Item = (usize, &Value)> {
    value.as_array().into_iter().flatten().enumerate()
}

/// Numbers at the start of a version, as `[14, 1, 2]`.
fn numbers(version: &str) -> Vec<u64> {
    version.split(['.', '-']).map_while(|part| part.parse().ok()).collect()
}

impl Rules<'_> {
    fn note(&mut self, code: &'static str, path: &str, message: impl Into<String>, help: impl Into<String>) {
        // A missing key has no line of its own; the nearest thing around it has.
        let mut at = path;
        let line = loop {
            if let Some(&line) = self.lines.get(at) {
                break Some(line).filter(|&l| l > 0);
            }
            match at.rfind(['.', '[']) {
                Some(end) => at = &at[..end],
                None => break None,
            }
        };
        self.problems.push(SiteProblem {
            code,
            path: path.to_owned(),
            line,
            message: message.into(),
            help: help.into(),
        });
    }

    /// A reference to a set of credentials: its kind, if there is such a set.
    fn credentials_kind(&mut self, path: &str, name: &Value) -> Option<String> {
        let name = name.as_str()?;
        let sets = &self.site["credentials"];
        if let Some(set) = sets.get(name) {
            return set["kind"].as_str().map(str::to_owned);
        }
        // A set that is there but wrong has been spoken of already.
        if self.lines.contains_key(&below("credentials", name)) {
            return None;
        }
        let known: Vec<&str> =
            sets.as_object().map(|s| s.keys().map(String::as_str).collect()).unwrap_or_default();
        let help = match nearest(name, known.iter().copied()) {
            Some(near) => format!("did you mean `{near}`?"),
            None if known.is_empty() => format!("add a set `{name}` under `credentials:`"),
            None => format!("add it under `credentials:`; known are: {}", known.join(", ")),
        };
        self.note(codes::UNKNOWN_REFERENCE, path, format!("there are no credentials named {name:?}"), help);
        None
    }

    fn credentials(&mut self) {
        let site = self.site;
        for (name, set) in site["credentials"].as_object().into_iter().flatten() {
            let path = below(&below("credentials", name), "source");
            if self.credentials_kind(&path, &set["source"]).is_some() && self.leads_back(name) {
                self.note(
                    codes::UNSUPPORTED,
                    &path,
                    "leads back to this very set",
                    "name a set that begins with a key, a profile, the environment or the instance's role",
                );
            }
        }
        self.service_credentials();
        self.credentials_kind("aws.credentials", &site["aws"]["credentials"]);
    }

    /// Whether following the sources of a role comes round to it.
    fn leads_back(&self, name: &str) -> bool {
        let sets = &self.site["credentials"];
        let mut at = name;
        for _ in 0..sets.as_object().map_or(0, serde_json::Map::len) {
            match sets[at]["source"].as_str() {
                Some(next) if next == name => return true,
                Some(next) => at = next,
                None => return false,
            }
        }
        false
    }

    /// What can be put into the service user's `~/.aws`.
    fn service_credentials(&mut self) {
        let site = self.site;
        let path = "service_credentials";
        let Some(kind) = self.credentials_kind(path, &site[path]) else { return };
        let set = &site["credentials"][site[path].as_str().unwrap_or_default()];
        let help = "use a set of `kind: static` or `kind: assume_role`, or leave `service_credentials` out to use the \
                    instance's role";
        match kind.as_str() {
            "static" | "instance_role" => {}
            "assume_role" => {
                let source = set["source"].as_str().map(|s| site["credentials"][s]["kind"].as_str());
                if let Some(Some(kind)) = source
                    && !matches!(kind, "static" | "instance_role")
                {
                    let message = format!(
                        "the role's source is of kind {kind}, which cannot be put into the service user's ~/.aws"
                    );
                    self.note(
                        codes::UNSUPPORTED,
                        path,
                        message,
                        "let the role's `source` be a set of `kind: static` or `kind: instance_role`, or leave it out",
                    );
                }
            }
            kind => self.note(
                codes::UNSUPPORTED,
                path,
                format!("credentials of kind {kind} cannot be put into the service user's ~/.aws"),
                help,
            ),
        }
    }

    /// What DSS can carry in a connection, and that it is not what is to be private to others.
    fn connection_credentials(&mut self, path: &str, connection: &Value) {
        let site = self.site;
        let at = below(path, "credentials");
        let Some(kind) = self.credentials_kind(&at, &connection["credentials"]) else { return };
        let name = connection["credentials"].as_str().unwrap_or_default();
        let set = &site["credentials"][name];
        match kind.as_str() {
            "static" if !set["session_token"].is_null() => self.note(
                codes::UNSUPPORTED,
                &at,
                "has a session token, which a connection of DSS cannot carry and which ends within hours",
                "give the connection a lasting key or a role",
            ),
            "assume_role" => {
                for key in ["source", "session_name", "external_id"] {
                    if !set[key].is_null() {
                        self.note(
                            codes::UNSUPPORTED,
                            &below(&below("credentials", name), key),
                            format!(
                                "is of no use in {path}: DSS assumes the role itself, as the service user"
                            ),
                            "remove it, or give the connection a set of its own",
                        );
                    }
                }
            }
            "static" => {}
            kind => self.note(
                codes::UNSUPPORTED,
                &at,
                format!("credentials of kind {kind} cannot serve Athena and Glue"),
                "name a set of `kind: static` or `kind: assume_role`",
            ),
        }
        for (owner, whose) in
            [(&site["service_credentials"], "the service user"), (&site["aws"]["credentials"], "dssflow")]
        {
            let Some(private) = owner.as_str() else { continue };
            let same_key = |key: &str| !set[key].is_null() && set[key] == site["credentials"][private][key];
            if private == name || same_key("access_key_id") || same_key("secret_access_key") {
                self.note(
                    codes::SHARED_CREDENTIALS,
                    &at,
                    format!("are the credentials of {whose}, which must not reach users of DSS"),
                    "give the connection a key or role of its own that can reach its data and nothing else",
                );
            }
        }
    }

    fn verify(&mut self) {
        if self.site["verify"]["smoke"] != true {
            return;
        }
        let is_empty = |list: &Value| list.as_array().is_some_and(Vec::is_empty);
        let site = self.site;
        if site["connections"].is_null() || is_empty(&site["connections"]) {
            let help = "add a connection, or leave `verify.smoke` out";
            self.note(codes::UNSUPPORTED, "verify.smoke", "needs an S3 connection to write to", help);
        }
        if is_empty(&site["spark"]["configs"]) {
            let help = "name a configuration under `spark.configs`, or leave `verify.smoke` out";
            self.note(codes::UNSUPPORTED, "verify.smoke", "needs a Spark configuration", help);
        }
    }

    fn overlays(&mut self) {
        let mut found = Vec::new();
        for (kind, overlay) in self.site["overlays"].as_object().into_iter().flatten() {
            overlay::unknown(overlay, &below("overlays", kind), &mut found);
        }
        let known: Vec<&str> = overlay::PLACEHOLDERS.iter().map(|(name, _)| *name).collect();
        for (path, name) in found {
            let help = match nearest(&name, known.iter().copied()) {
                Some(near) => format!("did you mean `{{{{{near}}}}}`?"),
                None => format!("known are: {}", known.join(", ")),
            };
            self.note(codes::UNKNOWN_REFERENCE, &path, format!("there is no placeholder {name:?}"), help);
        }
    }

    /// Which machine: one that is there, or one to launch.
    fn machine(&mut self) {
        // One that is there and wrong has been spoken of already.
        let given =
            |key: &str| !self.site["host"][key].is_null() || self.lines.contains_key(&below("host", key));
        let (instance, launch) = (given("instance"), given("launch"));
        if instance && launch {
            self.note(
                codes::UNSUPPORTED,
                "host.launch",
                "stands beside host.instance: DSS lives on one machine",
                "keep `instance` for a machine that is there, or `launch` for one that the run makes",
            );
        } else if !instance && !launch && self.site["host"].is_object() {
            self.note(
                codes::MISSING_KEY,
                "host.instance",
                "is missing, and there is no host.launch",
                "add `instance:` (the id of a machine that is there), or `launch:` with at least `subnet:`",
            );
        }
        let host = &self.site["host"];
        if !host["launch"]["key_name"].is_null() && !host["launch"]["public_key"].is_null() {
            self.note(
                codes::UNSUPPORTED,
                "host.launch.public_key",
                "stands beside key_name: an instance takes one key pair",
                "keep `key_name` for a key pair that is there, or `public_key` for one to import",
            );
        }
    }

    fn host(&mut self) {
        self.machine();
        let host = &self.site["host"];
        if host["transport"] == "ssh" {
            for (key, what) in
                [("address", "the host's name or address"), ("user", "a user that is root or may sudo")]
            {
                // A machine that is still to be launched has no address yet: a step finds it out.
                let launched = key == "address" && !host["launch"].is_null();
                if host[key].is_null() && !launched && !self.lines.contains_key(&below("host", key)) {
                    self.note(
                        codes::MISSING_KEY,
                        &below("host", key),
                        "is missing, and `transport: ssh` needs it",
                        format!("add `{key}:` ({what})"),
                    );
                }
            }
        } else {
            for key in ["address", "user", "ssh_port", "identity_file"] {
                if !host[key].is_null() {
                    self.note(
                        codes::UNSUPPORTED,
                        &below("host", key),
                        "is for `transport: ssh` only",
                        "set `transport: ssh`, or remove it",
                    );
                }
            }
        }
    }

    fn dss(&mut self) {
        let dss = &self.site["dss"];
        if dss["user_isolation"] != true && items(&dss["isolation_groups"]).next().is_some() {
            self.note(
                codes::UNSUPPORTED,
                "dss.isolation_groups",
                "is for `user_isolation: true` only",
                "set `user_isolation: true`, or remove it",
            );
        }
        let version = dss["version"].as_str().map(numbers).unwrap_or_default();
        if let (Some(&first), Some(major)) = (version.first(), dss["major"].as_u64())
            && first != major
        {
            self.note(
                codes::UNSUPPORTED,
                "dss.major",
                format!("is {major}, but dss.version is of major {first}"),
                "remove `major:`, or make the two agree",
            );
        }
        if let (Some(data), Some(install), Some(version)) = (
            dss["data_dir"].as_str(),
            dss["install_dir"].as_str().or(Some("/opt/dataiku")),
            dss["version"].as_str(),
        ) {
            let kit = format!("{}/dataiku-dss-{version}", install.trim_end_matches('/'));
            if data.trim_end_matches('/') == install.trim_end_matches('/') || data.starts_with(&kit) {
                self.note(
                    codes::UNSUPPORTED,
                    "dss.data_dir",
                    "is where the kit is unpacked; DSS refuses that",
                    "choose a directory outside `install_dir`",
                );
            }
        }
        let driver = self.site["athena_driver"]["version"].as_str().map(numbers).unwrap_or_default();
        if driver.first() == Some(&3) && !version.is_empty() && version < vec![14, 1, 2] {
            self.note(
                codes::UNSUPPORTED,
                "athena_driver.version",
                "a 3.x driver takes credentials from an S3 connection only from DSS 14.1.2 on",
                "use a 2.x driver, or DSS 14.1.2 or later",
            );
        }
        if let (Some(directory), Some(data)) =
            (self.site["athena_driver"]["directory"].as_str(), dss["data_dir"].as_str())
            && directory.starts_with(&format!("{}/lib/jdbc", data.trim_end_matches('/')))
        {
            self.note(
                codes::UNSUPPORTED,
                "athena_driver.directory",
                "lies in DSS's own lib/jdbc, where the driver's jars clash with others",
                "choose a directory outside the data directory",
            );
        }
    }

    fn connections(&mut self) {
        let site = self.site;
        let mut groups: BTreeSet<&str> =
            items(&site["groups"]).filter_map(|(_, g)| g["name"].as_str()).collect();
        groups.extend(BUILT_IN_GROUPS);
        let mut first_athena = None;
        for (ix, connection) in items(&site["connections"]) {
            let path = format!("connections[{ix}]");
            self.connection_credentials(&path, connection);
            for key in ["usable_by", "readable_by"] {
                for (n, group) in items(&connection[key]) {
                    let Some(group) = group.as_str().filter(|g| !groups.contains(g)) else { continue };
                    let help = match nearest(group, groups.iter().copied()) {
                        Some(near) => format!("did you mean `{near}`?"),
                        None => format!("add `- name: {group}` under `groups:`"),
                    };
                    self.note(
                        codes::UNKNOWN_REFERENCE,
                        &format!("{path}.{key}[{n}]"),
                        format!("there is no group named {group:?}"),
                        help,
                    );
                }
            }
            if self.lines.contains_key(&below(&path, "athena")) {
                first_athena.get_or_insert(ix);
            }
        }
        if let Some(ix) = first_athena
            && site["athena_driver"].is_null()
            && !self.lines.contains_key("athena_driver")
        {
            self.note(
                codes::MISSING_KEY,
                "athena_driver",
                format!("is missing, and connections[{ix}].athena needs it"),
                "add `athena_driver:` with version, url and sha256 of the Athena JDBC driver",
            );
        }
        let names: Vec<&str> = items(&site["connections"]).filter_map(|(_, c)| c["name"].as_str()).collect();
        if let Some(name) = site["glue"]["connection"].as_str().filter(|n| !names.contains(n)) {
            let help = nearest(name, names.iter().copied()).map_or_else(
                || format!("name one of: {}", names.join(", ")),
                |near| format!("did you mean `{near}`?"),
            );
            self.note(
                codes::UNKNOWN_REFERENCE,
                "glue.connection",
                format!("there is no connection named {name:?}"),
                help,
            );
        }
    }

    /// Names that would meet in DSS, or in the names of steps, where case does not count.
    fn names(&mut self) {
        let site = self.site;
        let list = |list: &str, key: &str| -> Vec<(String, &str)> {
            items(&site[list])
                .filter_map(|(ix, item)| item[key].as_str().map(|name| (format!("{list}[{ix}].{key}"), name)))
                .collect()
        };
        let mut connections = list("connections", "name");
        connections.extend(items(&site["connections"]).filter_map(|(ix, c)| {
            c["athena"]["name"].as_str().map(|name| (format!("connections[{ix}].athena.name"), name))
        }));
        let spark: Vec<(String, &str)> = items(&site["spark"]["configs"])
            .filter_map(|(ix, c)| c["name"].as_str().map(|name| (format!("spark.configs[{ix}].name"), name)))
            .collect();
        for names in [connections, list("groups", "name"), list("projects", "key"), spark] {
            let mut seen: BTreeMap<String, String> = BTreeMap::new();
            for (path, name) in names {
                if let Some(first) = seen.get(&name.to_lowercase()) {
                    let message = format!("{name:?} is taken by {first}");
                    self.note(
                        codes::DUPLICATE,
                        &path,
                        message,
                        "choose another name; upper and lower case do not count",
                    );
                } else {
                    seen.insert(name.to_lowercase(), path);
                }
            }
        }
    }

    fn plugin(&mut self) {
        let plugin = &self.site["plugin"];
        if plugin["source"] == "zip" {
            for key in ["url", "sha256"] {
                if !self.lines.contains_key(&below("plugin", key)) {
                    self.note(
                        codes::MISSING_KEY,
                        &below("plugin", key),
                        "is missing, and `source: zip` needs it",
                        format!("add `{key}:` of the plugin's zip file"),
                    );
                }
            }
        } else {
            for key in ["url", "sha256"] {
                if !plugin[key].is_null() {
                    self.note(
                        codes::UNSUPPORTED,
                        &below("plugin", key),
                        "is for `source: zip` only",
                        "set `source: zip`, or remove it",
                    );
                }
            }
        }
    }

    fn cluster(&mut self) {
        let cluster = &self.site["cluster"];
        if cluster["mode"] != "sdk" {
            for key in ["cluster", "node"] {
                if !cluster["roles"][key].is_null() {
                    self.note(
                        codes::UNSUPPORTED,
                        &format!("cluster.roles.{key}"),
                        "is for `mode: sdk` only; eksctl makes its own roles",
                        "set `mode: sdk`, or remove it",
                    );
                }
            }
        }
        let pool = &cluster["node_pool"];
        let number = |key: &str, default: u64| pool[key].as_u64().unwrap_or(default);
        let nodes = number("num_nodes", 3);
        if number("min_nodes", nodes) > nodes {
            self.note(
                codes::WRONG_VALUE,
                "cluster.node_pool.min_nodes",
                format!("is more than num_nodes, {nodes}"),
                "make it at most num_nodes",
            );
        }
        if number("max_nodes", nodes) < nodes {
            self.note(
                codes::WRONG_VALUE,
                "cluster.node_pool.max_nodes",
                format!("is less than num_nodes, {nodes}"),
                "make it at least num_nodes",
            );
        }
    }
}

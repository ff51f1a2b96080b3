//! `useradd`, `usermod`, `userdel`, `groupadd`, `groupdel`, `gpasswd`, `getent` and `id`.

use super::super::root::{Group, User};
use super::super::{Call, ToolResult, refuse};

fn last(call: &Call) -> String {
    call.argv.last().cloned().unwrap_or_default()
}

fn need_root(call: &Call) -> Result<(), super::super::Refusal> {
    if call.is_root() {
        return Ok(());
    }
    let program = call.program();
    refuse(1, format!("{program}: Permission denied.\n{program}: cannot lock /etc/passwd; try again later."))
}

/// `useradd [-m] [-s SHELL] [-c COMMENT] NAME`
pub(super) fn useradd(call: &mut Call) -> ToolResult {
    need_root(call)?;
    let name = last(call);
    let _lock = call.root.lock("/etc/.pwd.lock")?;
    if call.root.user(&name).is_some() {
        return refuse(9, format!("useradd: user '{name}' already exists"));
    }
    if call.root.group(&name).is_some() {
        return refuse(
            9,
            format!("useradd: group {name} exists - if you want to add this user to that group, use -g."),
        );
    }
    let uid = call.root.free_id(1000);
    let text = |names: &[&str], other: &str| call.option(names).unwrap_or(other).to_owned();
    let user = User {
        name: name.clone(),
        uid,
        comment: text(&["-c", "--comment"], ""),
        home: text(&["-d", "--home-dir"], &format!("/home/{name}")),
        shell: text(&["-s", "--shell"], "/bin/bash"),
    };
    if user.comment.contains(':') {
        return refuse(3, format!("useradd: invalid comment '{}'", user.comment));
    }
    if call.has("-m") || call.has("--create-home") {
        std::fs::create_dir_all(call.root.map(&user.home))?;
    }
    let (mut users, mut groups) = (call.root.users(), call.root.groups());
    users.push(user);
    groups.push(Group { name, gid: uid, members: Vec::new() });
    call.root.set_groups(&groups)?;
    call.root.set_users(&users)?;
    Ok(0)
}

/// `usermod -aG GROUP[,GROUP] NAME`
pub(super) fn usermod(call: &mut Call) -> ToolResult {
    need_root(call)?;
    let name = last(call);
    let _lock = call.root.lock("/etc/.pwd.lock")?;
    if call.root.user(&name).is_none() {
        return refuse(6, format!("usermod: user '{name}' does not exist"));
    }
    let wanted: Vec<String> =
        call.option(&["-aG", "-G"]).unwrap_or_default().split(',').map(str::to_owned).collect();
    let mut groups = call.root.groups();
    for group in wanted {
        let Some(entry) = groups.iter_mut().find(|g| g.name == group) else {
            return refuse(6, format!("usermod: group '{group}' does not exist"));
        };
        if !entry.members.contains(&name) {
            entry.members.push(name.clone());
        }
    }
    call.root.set_groups(&groups)?;
    Ok(0)
}

/// `userdel [-r] NAME`
pub(super) fn userdel(call: &mut Call) -> ToolResult {
    need_root(call)?;
    let name = last(call);
    let _lock = call.root.lock("/etc/.pwd.lock")?;
    let Some(user) = call.root.user(&name) else {
        return refuse(6, format!("userdel: user '{name}' does not exist"));
    };
    let users: Vec<User> = call.root.users().into_iter().filter(|u| u.name != name).collect();
    let mut groups: Vec<Group> = call.root.groups().into_iter().filter(|g| g.name != name).collect();
    for group in &mut groups {
        group.members.retain(|m| *m != name);
    }
    call.root.set_users(&users)?;
    call.root.set_groups(&groups)?;
    if call.has("-r") {
        call.root.remove_tree(&user.home);
    }
    Ok(0)
}

/// `groupadd NAME`
pub(super) fn groupadd(call: &mut Call) -> ToolResult {
    need_root(call)?;
    let name = last(call);
    let _lock = call.root.lock("/etc/.pwd.lock")?;
    if call.root.group(&name).is_some() {
        return refuse(9, format!("groupadd: group '{name}' already exists"));
    }
    let mut groups = call.root.groups();
    groups.push(Group { name, gid: call.root.free_id(980), members: Vec::new() });
    call.root.set_groups(&groups)?;
    Ok(0)
}

/// `groupdel NAME`
pub(super) fn groupdel(call: &mut Call) -> ToolResult {
    need_root(call)?;
    let name = last(call);
    let _lock = call.root.lock("/etc/.pwd.lock")?;
    if call.root.group(&name).is_none() {
        return refuse(6, format!("groupdel: group '{name}' does not exist"));
    }
    let groups: Vec<Group> = call.root.groups().into_iter().filter(|g| g.name != name).collect();
    call.root.set_groups(&groups)?;
    Ok(0)
}

/// `gpasswd -d USER GROUP`
pub(super) fn gpasswd(call: &mut Call) -> ToolResult {
    need_root(call)?;
    let group = last(call);
    let user = call.option(&["-d"]).unwrap_or_default().to_owned();
    let _lock = call.root.lock("/etc/.pwd.lock")?;
    let mut groups = call.root.groups();
    let entry = groups.iter_mut().find(|g| g.name == group);
    let Some(entry) = entry.filter(|g| g.members.contains(&user)) else {
        return refuse(3, format!("gpasswd: user '{user}' is not a member of '{group}'"));
    };
    entry.members.retain(|m| *m != user);
    call.root.set_groups(&groups)?;
    Ok(0)
}

/// `getent passwd|group NAME`
pub(super) fn getent(call: &mut Call) -> ToolResult {
    let name = last(call);
    let line = match call.argv.get(1).map(String::as_str) {
        Some("passwd") => call
            .root
            .user(&name)
            .map(|u| format!("{}:x:{}:{}:{}:{}:{}", u.name, u.uid, u.uid, u.comment, u.home, u.shell)),
        Some("group") => {
            call.root.group(&name).map(|g| format!("{}:x:{}:{}", g.name, g.gid, g.members.join(",")))
        }
        _ => return refuse(1, "getent: unknown database"),
    };
    match line {
        Some(line) => {
            call.print(line);
            Ok(0)
        }
        None => Ok(2),
    }
}

/// `id [-u|-un|-nG] [NAME]`
pub(super) fn id(call: &mut Call) -> ToolResult {
    let args = call.args();
    let option = args.iter().find(|a| a.starts_with('-')).map(|a| (*a).to_owned());
    let named =
        args.iter().find(|a| !a.starts_with('-')).map_or_else(|| call.user.clone(), |a| (*a).to_owned());
    let Some(user) = call.root.user(&named) else {
        return refuse(1, format!("id: '{named}': no such user"));
    };
    let groups = call.root.groups_of(&named);
    let line = match option.as_deref() {
        Some("-u") => user.uid.to_string(),
        Some("-un" | "-nu") => user.name,
        Some("-nG" | "-Gn") => groups.join(" "),
        Some(other) => return refuse(1, format!("id: invalid option {other}")),
        None => format!("uid={0}({1}) gid={0}({1}) groups={2}", user.uid, user.name, groups.join(",")),
    };
    call.print(line);
    Ok(0)
}

/// `test -r PATH`: whether the user may read it, by mode and owner. Nothing else of the host enforces permissions.
pub(super) fn test(call: &mut Call) -> ToolResult {
    use std::os::unix::fs::PermissionsExt;
    let [_, flag, path] = call.argv.as_slice() else {
        return refuse(2, "test: one operator and one path, please");
    };
    if flag != "-r" {
        return refuse(2, format!("test: {flag}: the sandbox knows -r only"));
    }
    let Ok(meta) = std::fs::metadata(call.root.map(path)) else { return Ok(1) };
    let mode = meta.permissions().mode();
    let home = path.strip_prefix("/home/").and_then(|rest| rest.split('/').next());
    let owner = home.unwrap_or("root");
    let bits = if call.user == owner { 0o400 } else { 0o004 };
    // A home and what is in it may be closed to others; above it, the sandbox's own directories are no part of the host.
    let closed = call.user != owner
        && std::path::Path::new(path).ancestors().skip(1).filter(|dir| dir.components().count() > 2).any(
            |dir| {
                let dir = call.root.map(&dir.to_string_lossy());
                std::fs::metadata(dir).is_ok_and(|m| m.permissions().mode() & 0o001 == 0)
            },
        );
    Ok(u8::from(!(call.is_root() || mode & bits != 0 && !closed)))
}

//! Facts of the machine: `uname`, `nproc`, `df`, `hostname`, `java`.

use super::super::{Call, ToolResult};

/// `uname -m` and the like.
pub(super) fn uname(call: &mut Call) -> ToolResult {
    call.print(if call.has("-m") { "x86_64" } else { "Linux" });
    Ok(0)
}

/// An m6i.4xlarge.
pub(super) fn nproc(call: &mut Call) -> ToolResult {
    call.print("16");
    Ok(0)
}

/// `df -PTk PATH`: 500 GB of xfs, 480 free.
pub(super) fn df(call: &mut Call) -> ToolResult {
    call.print("Filesystem     Type 1024-blocks     Used Available Capacity Mounted on");
    call.print("/dev/nvme1n1   xfs    524288000 20971520 503316480       4% /data");
    Ok(0)
}

/// `hostname [-f]`
pub(super) fn hostname(call: &mut Call) -> ToolResult {
    let name = call.root.read("/etc/hostname").unwrap_or_default();
    call.print(name.trim());
    Ok(0)
}

/// `java -version`
pub(super) fn java(call: &mut Call) -> ToolResult {
    call.warn("openjdk version \"17.0.13\" 2024-10-15 LTS");
    Ok(0)
}

/// A tool without effect here.
pub(super) fn nothing(_: &mut Call) -> ToolResult {
    Ok(0)
}

//! Host keys of machines: their fingerprints, and what the console of an EC2 instance says of them.
//!
//! cloud-init prints the fingerprints and the keys of a new machine on its console, which `ec2:GetConsoleOutput` gives to
//! the owner of the account over a connection that the machine has no part in. Nothing here opens a connection.
//!
//! Pages: <https://cloudinit.readthedocs.io/en/latest/reference/modules.html#keys-to-console>,
//! <https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_GetConsoleOutput.html>

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use sha2::{Digest, Sha256};

/// Kinds of keys a host may have, with the number of fields in the blob; certificates and hardware keys are not among
/// them.
const KINDS: [(&str, usize); 5] = [
    ("ssh-ed25519", 2),
    ("ecdsa-sha2-nistp256", 3),
    ("ecdsa-sha2-nistp384", 3),
    ("ecdsa-sha2-nistp521", 3),
    ("ssh-rsa", 3),
];

/// The fields of a blob, when they fill it exactly: a key that was cut is none.
fn fields(mut blob: &[u8]) -> Option<Vec<&[u8]>> {
    let mut fields = Vec::new();
    while !blob.is_empty() {
        let (length, rest) = blob.split_at_checked(4)?;
        let length = u32::from_be_bytes(length.try_into().ok()?);
        let (field, rest) = rest.split_at_checked(usize::try_from(length).ok()?)?;
        fields.push(field);
        blob = rest;
    }
    Some(fields)
}

/// `KIND BASE64` of the first two words, when they are a host key.
fn key<'w>(mut words: impl Iterator<Item = &'w str>) -> Option<String> {
    let (kind, blob) = (words.next()?, words.next()?);
    let (_, count) = KINDS.iter().find(|(known, _)| *known == kind)?;
    let bytes = STANDARD.decode(blob).ok()?;
    let fields = fields(&bytes)?;
    (fields.len() == *count && fields[0] == kind.as_bytes()).then(|| format!("{kind} {blob}"))
}

/// The SHA-256 fingerprint of `KIND BASE64 [COMMENT]`, as `ssh-keygen -l` prints it; `None` when that is no host key.
pub(super) fn fingerprint(line: &str) -> Option<String> {
    let plain = key(line.split_whitespace())?;
    let blob = STANDARD.decode(plain.split_once(' ')?.1).ok()?;
    Some(format!("SHA256:{}", STANDARD_NO_PAD.encode(Sha256::digest(blob))))
}

/// The keys in the lines of a `known_hosts` file, whatever they are kept under.
pub(super) fn known(text: &str) -> Vec<String> {
    text.lines().filter_map(|line| key(line.split_whitespace().skip(1))).collect()
}

/// What a console says of the machine's keys.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct ConsoleKeys {
    /// Whole keys, `KIND BASE64`.
    pub(super) keys: Vec<String>,
    /// Fingerprints, `SHA256:...`, of these and of keys that were printed by fingerprint only.
    pub(super) fingerprints: Vec<String>,
}

/// Reads the output of a console. Each line may have a prefix, as `ec2: ` or a time; only what stands between the markers
/// of cloud-init counts, and of several boots the last.
pub(super) fn console(text: &str) -> ConsoleKeys {
    let mut found = ConsoleKeys::default();
    let mut inside = "";
    for line in text.lines() {
        if line.contains("-----BEGIN SSH HOST KEY FINGERPRINTS-----") {
            found.fingerprints.clear();
            inside = "fingerprints";
        } else if line.contains("-----BEGIN SSH HOST KEY KEYS-----") {
            found.keys.clear();
            inside = "keys";
        } else if line.contains("-----END SSH HOST KEY") {
            inside = "";
        } else if inside == "fingerprints" {
            let word = line.split_whitespace().find(|w| w.starts_with("SHA256:") && w.len() == 50);
            found.fingerprints.extend(word.map(str::to_owned));
        } else if inside == "keys" {
            let words: Vec<&str> = line.split_whitespace().collect();
            let at = words.iter().position(|word| KINDS.iter().any(|(kind, _)| kind == word));
            found.keys.extend(at.and_then(|at| key(words[at..].iter().copied())));
        }
    }
    for print in found.keys.iter().filter_map(|key| fingerprint(key)).collect::<Vec<_>>() {
        if !found.fingerprints.contains(&print) {
            found.fingerprints.push(print);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    // Made with ssh-keygen for this test; the fingerprints are what `ssh-keygen -l` prints.
    const ED25519: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAINg/Jo6/Z1DJjSIEnr2LD/j5t1Uk2xSaCzDv8h/C9jB3";
    const ED25519_PRINT: &str = "SHA256:ECFPq79De8/Kv6FhO6hxJgTIhM+JwngSuDVON/qj6TI";
    const ECDSA: &str = "ecdsa-sha2-nistp256 AAAAE2VjZHNhLXNoYTItbmlzdHAyNTYAAAAIbmlzdHAyNTYAAABBBONMl7KzGmmfS9sTy8tn9+ypYHihdnE3Ga5PzVW3juJxSeE/nT7zkLPx83ATOfysuxoyvSn8QM2TVFiFsKPGxDE=";
    const ECDSA_PRINT: &str = "SHA256:pT3LSq/dWeCkeVEQWBhDMS1yieB6lREDmo1TkWB1BL8";

    #[test]
    fn fingerprints_are_those_of_ssh_keygen() {
        assert_eq!(fingerprint(ED25519).as_deref(), Some(ED25519_PRINT));
        assert_eq!(fingerprint(&format!("{ECDSA} root@host")).as_deref(), Some(ECDSA_PRINT));
        for bad in
            ["", "ssh-ed25519", "ssh-ed25519 AAAA", "ssh-rsa x y", &ED25519[..60], "ssh-dss AAAAB3NzaC1kc3M="]
        {
            assert_eq!(fingerprint(bad), None, "{bad:?}");
        }
        // A key under another kind's name.
        let blob = ED25519.split(' ').nth(1).unwrap();
        assert_eq!(fingerprint(&format!("ecdsa-sha2-nistp256 {blob}")), None);
    }

    #[test]
    fn a_console_is_read_between_its_markers() {
        let text = format!(
            "[   12.1] cloud-init: {ED25519_PRINT} is not between markers\n\
             ec2: \nec2: -----BEGIN SSH HOST KEY FINGERPRINTS-----\n\
             ec2: 256 {ED25519_PRINT} root@ip-10-0-0-4 (ED25519)\n\
             ec2: -----END SSH HOST KEY FINGERPRINTS-----\n\
             -----BEGIN SSH HOST KEY KEYS-----\n[   25.9] {ECDSA} root@ip-10-0-0-4\nnot a key\n\
             -----END SSH HOST KEY KEYS-----\n{ED25519}\n"
        );
        let found = console(&text);
        assert_eq!(found.keys, [ECDSA]);
        assert_eq!(found.fingerprints, [ED25519_PRINT, ECDSA_PRINT]);
        assert_eq!(console("nothing of it\n"), ConsoleKeys::default());
        // Another boot with new keys takes the place of the first.
        let later =
            format!("{text}\n-----BEGIN SSH HOST KEY KEYS-----\n{ED25519}\n-----END SSH HOST KEY KEYS-----");
        assert_eq!(console(&later).keys, [ED25519]);
    }

    #[test]
    fn known_hosts_lines_are_read() {
        let text = format!("i-0abc {ED25519}\n|1|hash|hash {ECDSA}\n# a comment\n");
        assert_eq!(known(&text), [ED25519, ECDSA]);
    }
}

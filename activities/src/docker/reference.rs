//! Names of images and registries: checked, and registries brought to the one form that Docker compares.
//!
//! Page: <https://github.com/distribution/reference/blob/main/reference.go>

use dssflow_engine::activity::{ActivityError, ActivityResult};

/// The most a repository's name may have, with its registry.
const MAX_NAME: usize = 255;
/// The most a tag may have.
const MAX_TAG: usize = 128;

/// A registry's host without scheme and path, as Docker names it: a login for `https://HOST` is none for `HOST`.
///
/// # Errors
/// A terminal error for what is no host with an optional port.
pub fn registry_host(text: &str) -> ActivityResult<String> {
    let bare = text.trim();
    let bare = bare.strip_prefix("https://").or_else(|| bare.strip_prefix("http://")).unwrap_or(bare);
    let bare = bare.trim_end_matches('/');
    let bare = bare.strip_suffix("/v2").or_else(|| bare.strip_suffix("/v1")).unwrap_or(bare);
    let (name, port) = match bare.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((name, rest)) => (name, rest.strip_prefix(':')),
        None => bare.rsplit_once(':').map_or((bare, None), |(name, port)| (name, Some(port))),
    };
    let named = !name.is_empty()
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'.' || b == b'-' || b == b':');
    if named && port.is_none_or(|port| port.parse::<u16>().is_ok()) {
        return Ok(bare.to_ascii_lowercase());
    }
    Err(wrong(format!("{text:?} is no registry")).help(
        "name it by its host, as 123456789012.dkr.ecr.eu-west-1.amazonaws.com or registry.example.com:5000",
    ))
}

/// Whether a registry's host is this machine: Docker speaks HTTP to such ones, and HTTPS to all others.
pub fn is_loopback(registry: &str) -> bool {
    let name = registry
        .strip_prefix('[')
        .and_then(|rest| rest.split_once(']'))
        .map_or_else(|| registry.rsplit_once(':').map_or(registry, |(name, _)| name), |(name, _)| name);
    name == "localhost" || name.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// Checks the name of a repository, without its registry.
///
/// # Errors
/// A terminal error.
pub fn check_repository(name: &str) -> ActivityResult<()> {
    let part = |part: &str| {
        let ends_well = |b: Option<&u8>| b.is_some_and(u8::is_ascii_alphanumeric);
        let bytes = part.as_bytes();
        ends_well(bytes.first())
            && ends_well(bytes.last())
            && !part.contains("..")
            && !part.contains("___")
            && bytes.iter().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-".contains(b))
    };
    if name.len() <= MAX_NAME && name.split('/').all(part) {
        return Ok(());
    }
    Err(wrong(format!("{name:?} is no name of a repository"))
        .help("small letters, digits, and . _ - between them, in parts divided by /"))
}

/// Checks a tag.
///
/// # Errors
/// A terminal error.
pub fn check_tag(tag: &str) -> ActivityResult<()> {
    let mut bytes = tag.bytes();
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    if tag.len() <= MAX_TAG
        && bytes.next().is_some_and(word)
        && bytes.all(|b| word(b) || b == b'.' || b == b'-')
    {
        return Ok(());
    }
    Err(wrong(format!("{tag:?} is no tag of an image"))
        .help("letters, digits, _ and, but not first, . and -; at most 128"))
}

/// Checks an image's id, or its name with a tag.
///
/// # Errors
/// A terminal error.
pub fn check_image(image: &str) -> ActivityResult<()> {
    if let Some(hex) = image.strip_prefix("sha256:")
        && hex.len() == 64
        && hex.bytes().all(|b| b.is_ascii_hexdigit())
    {
        return Ok(());
    }
    let Some((name, tag)) = image.rsplit_once(':') else {
        return Err(
            wrong(format!("image {image:?} has no tag")).help("name it as lab/exec:1.0, or by its id")
        );
    };
    check_tag(tag)?;
    match name.split_once('/') {
        Some((first, rest)) if first.contains(['.', ':']) || first == "localhost" => {
            registry_host(first)?;
            check_repository(rest)
        }
        _ => check_repository(name),
    }
}

fn wrong(message: String) -> ActivityError {
    ActivityError::terminal("ImageNameInvalid", message).no_effect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_registry_is_a_host_and_nothing_else() {
        let ecr = "123456789012.dkr.ecr.eu-west-1.amazonaws.com";
        for text in
            [ecr.to_owned(), format!("https://{ecr}"), format!("https://{ecr}/"), format!(" {ecr}/v2/")]
        {
            assert_eq!(registry_host(&text).unwrap(), ecr, "{text}");
        }
        assert_eq!(registry_host("http://127.0.0.1:5000").unwrap(), "127.0.0.1:5000");
        assert_eq!(registry_host("[::1]:5000").unwrap(), "[::1]:5000");
        for text in ["", "https://", "a b", "host/path", "host:port", "user@host", "host:70000"] {
            assert_eq!(registry_host(text).unwrap_err().code, "ImageNameInvalid", "{text}");
        }
    }

    #[test]
    fn this_machine_is_spoken_to_without_tls() {
        for host in ["127.0.0.1:5000", "127.1.2.3", "localhost:1", "localhost", "[::1]:5000"] {
            assert!(is_loopback(host), "{host}");
        }
        for host in ["10.0.0.1:5000", "registry.example.com", "127.0.0.1.example.com:80"] {
            assert!(!is_loopback(host), "{host}");
        }
    }

    #[test]
    fn names_and_tags() {
        for name in ["exec", "lab/dku-exec-base_1", "a.b/c--d/e__f"] {
            assert!(check_repository(name).is_ok(), "{name}");
        }
        for name in ["", "Lab", "a//b", "/a", "a/", "-a", "a..b", "a:b", "a___b", "a?b", "a/../b"] {
            assert!(check_repository(name).is_err(), "{name}");
        }
        assert!(check_tag("dss-14.1.0").is_ok() && check_tag("_x").is_ok() && check_tag("1").is_ok());
        for tag in ["", ".x", "-x", "a b", "a/b", "é"] {
            assert!(check_tag(tag).is_err(), "{tag}");
        }
        assert!(check_tag(&"x".repeat(128)).is_ok() && check_tag(&"x".repeat(129)).is_err());
    }

    #[test]
    fn an_image_is_an_id_or_a_name_with_a_tag() {
        let id = format!("sha256:{}", "a".repeat(64));
        for image in [id.as_str(), "lab/exec:1", "127.0.0.1:5000/lab/exec:1", "host.example.com/x:latest"] {
            assert!(check_image(image).is_ok(), "{image}");
        }
        for image in ["lab/exec", "127.0.0.1:5000/lab", "sha256:xyz/a", "a/b:c d"] {
            assert!(check_image(image).is_err(), "{image}");
        }
    }
}

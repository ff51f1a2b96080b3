//! What services make of client tokens: lengths they refuse, and the refusal of a token that comes again with another
//! request.

use serde_json::{Value, json};

use super::recognise::Call;
use super::reply::Reply;

/// The refusal of a token that the service does not take; `None` when it takes it.
///
/// Pages: the `ClientToken` of EC2 has at most 64 ASCII characters, the `ClientRequestToken` of Athena 32 to 128.
pub(super) fn refused(call: &Call) -> Option<Reply> {
    let token = call.token.as_deref()?;
    match call.service.as_str() {
        "ec2" if token.len() > 64 || !token.is_ascii() => Some(Reply::error(
            "ec2",
            400,
            "InvalidParameterValue",
            "Value for parameter clientToken is invalid. It may have at most 64 ASCII characters.",
        )),
        "athena" if !(32..=128).contains(&token.len()) => Some(athena(&format!(
            "1 validation error detected: Value '{token}' at 'clientRequestToken' failed to satisfy constraint: Member \
             must have length {}",
            if token.len() < 32 { "greater than or equal to 32" } else { "less than or equal to 128" }
        ))),
        _ => None,
    }
}

/// What of a request is compared when its token comes again: the parameters, not the order in which a client wrote them.
pub(super) fn compared(body: &[u8]) -> Vec<u8> {
    match serde_json::from_slice::<Value>(body) {
        Ok(mut parameters) => {
            parameters.sort_all_objects();
            parameters.to_string().into_bytes()
        }
        Err(_) => body.to_vec(),
    }
}

/// The refusal of a token that came with other parameters before.
pub(super) fn mismatch(service: &str) -> Reply {
    match service {
        "ec2" => Reply::error(
            service,
            400,
            "IdempotentParameterMismatch",
            "Arguments on this idempotent request are inconsistent with arguments used in previous request(s).",
        ),
        "athena" => athena("Idempotent parameters do not match"),
        _ => Reply::error(
            service,
            400,
            "InvalidParameterException",
            "IdempotentParameterMismatch: arguments on this idempotent request are inconsistent with arguments used in \
             previous request(s).",
        ),
    }
}

fn athena(message: &str) -> Reply {
    let mut reply = Reply::error("athena", 400, "InvalidRequestException", "");
    let body = json!({ "__type": "InvalidRequestException", "AthenaErrorCode": "INVALID_INPUT", "Message": message });
    reply.body = body.to_string().into();
    reply
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_of_parameters_does_not_matter() {
        let one = compared(br#"{"name":"a","tags":{"x":"1","y":"2"}}"#);
        assert_eq!(one, compared(br#"{"tags":{"y":"2","x":"1"},"name":"a"}"#));
        assert_ne!(one, compared(br#"{"name":"a","tags":{"x":"1","y":"3"}}"#));
        assert_eq!(compared(b"Action=RunInstances"), b"Action=RunInstances");
    }

    #[test]
    fn tokens_have_the_lengths_that_services_take() {
        let call = |service: &str, length: usize| Call {
            service: service.to_owned(),
            operation: "X".to_owned(),
            access_key: String::new(),
            path: Vec::new(),
            mutating: true,
            token: Some("t".repeat(length)),
        };
        for (service, length, taken) in [
            ("ec2", 64, true),
            ("ec2", 65, false),
            ("athena", 31, false),
            ("athena", 32, true),
            ("athena", 129, false),
            ("eks", 1, true),
        ] {
            assert_eq!(refused(&call(service, length)).is_none(), taken, "{service} {length}");
        }
    }
}

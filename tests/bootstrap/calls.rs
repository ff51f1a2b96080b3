//! What dssflow's own calls to AWS carried: our token wherever the operation takes one (R21), and the ownership marks
//! on everything that is made and can carry them. Read from the sandbox's record of every call.

use dssflow_sandbox::CallRecord;

use crate::support::Home;

/// Operations of the services we call whose request has a token for idempotency. Read from the models of the APIs; the
/// SDK fills most of these with a random one when it is left out, which is stable over the SDK's own retries and no
/// longer than that.
const TAKE_A_TOKEN: &[&str] = &[
    "athena:CreateNamedQuery",
    "athena:StartQueryExecution",
    "cloudformation:CreateStack",
    "cloudformation:DeleteStack",
    "cloudformation:UpdateStack",
    "ec2:CopyImage",
    "ec2:CreateLaunchTemplate",
    "ec2:CreateLaunchTemplateVersion",
    "ec2:CreateNatGateway",
    "ec2:CreateNetworkInterface",
    "ec2:CreateRouteTable",
    "ec2:CreateVolume",
    "ec2:ModifyLaunchTemplate",
    "ec2:RunInstances",
    "eks:AssociateEncryptionConfig",
    "eks:AssociateIdentityProviderConfig",
    "eks:CreateAccessEntry",
    "eks:CreateAddon",
    "eks:CreateCluster",
    "eks:CreateFargateProfile",
    "eks:CreateNodegroup",
    "eks:CreatePodIdentityAssociation",
    "eks:UpdateAccessEntry",
    "eks:UpdateAddon",
    "eks:UpdateClusterConfig",
    "eks:UpdateClusterVersion",
    "eks:UpdateNodegroupConfig",
    "eks:UpdateNodegroupVersion",
    "secretsmanager:CreateSecret",
    "secretsmanager:PutSecretValue",
    "secretsmanager:RotateSecret",
    "secretsmanager:UpdateSecret",
];
/// Operations we call that change something and whose request has no token: names, tags and states tell there.
const TAKE_NONE: &[&str] = &[
    "ec2:DeleteKeyPair",
    "ec2:DeleteLaunchTemplate",
    "ec2:ImportKeyPair",
    "ec2:ModifyInstanceAttribute",
    "ec2:ModifyInstanceMetadataOptions",
    "ec2:ModifyNetworkInterfaceAttribute",
    "ec2:TerminateInstances",
    "ecr:BatchDeleteImage",
    "ecr:CreateRepository",
    "ecr:DeleteRepository",
    "eks:AssociateAccessPolicy",
    "eks:DeleteAccessEntry",
    "eks:DeleteAddon",
    "eks:DeleteCluster",
    "eks:DeleteNodegroup",
    "eks:DisassociateAccessPolicy",
    "glue:CreateDatabase",
    "glue:DeleteDatabase",
    "iam:AttachRolePolicy",
    "iam:CreateRole",
    "iam:CreateServiceLinkedRole",
    "iam:DeleteRole",
    "iam:DetachRolePolicy",
];
/// Operations that make something that can carry tags from its first moment.
const CARRY_MARKS: &[&str] = &[
    "ec2:CreateLaunchTemplate",
    "ec2:ImportKeyPair",
    "ec2:RunInstances",
    "ecr:CreateRepository",
    "eks:CreateAccessEntry",
    "eks:CreateAddon",
    "eks:CreateCluster",
    "eks:CreateNodegroup",
    "glue:CreateDatabase",
    "iam:CreateRole",
];

/// Whether a token has the form of ours: 64 hex digits. The SDK's own is a UUID.
fn is_ours(token: &str) -> bool {
    token.len() == 64 && token.chars().all(|c| c.is_ascii_digit() || matches!(c, 'a'..='f'))
}

/// What is wrong with a call of ours that changes something.
fn wrong(call: &CallRecord) -> Option<String> {
    let op = call.op.as_str();
    match (&call.token, TAKE_A_TOKEN.contains(&op)) {
        (None, true) => return Some(format!("{op} takes a token and went out without one")),
        (Some(token), _) if !is_ours(token) => {
            return Some(format!("{op} went out with a token of the SDK's: {token}"));
        }
        (None, false) if !TAKE_NONE.contains(&op) => {
            return Some(format!("{op} is in neither list of this test: look up whether it takes a token"));
        }
        _ => {}
    }
    (CARRY_MARKS.contains(&op) && !call.marked).then(|| format!("{op} makes something without our marks"))
}

/// Goes through every call of the world so far that changed something in dssflow's own name.
#[track_caller]
pub(crate) fn carry_our_tokens_and_marks(home: &Home, made: &[&str]) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let (world, report) = runtime.block_on(async {
        let world = dssflow_sandbox::find(&home.store().join("sandbox")).await.expect("asks").expect("alive");
        let report = dssflow_sandbox::calls(&world).await.expect("the sandbox answers");
        (world, report)
    });
    assert_eq!(report.total, report.recent.len() as u64, "the record has forgotten the first calls");
    let ours: Vec<&CallRecord> = report
        .recent
        .iter()
        .filter(|c| c.target == "aws" && c.mutating && c.caller == world.access_key_id)
        .collect();
    let wrong: Vec<String> = ours.iter().filter_map(|call| wrong(call)).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    for op in made {
        assert!(ours.iter().any(|call| call.op == *op), "{op} was never called: this test saw nothing of it");
    }
}

#[test]
fn a_token_of_the_sdk_a_missing_one_and_missing_marks_are_seen() {
    let call = |op: &str, token: Option<&str>, marked: bool| {
        let text = serde_json::json!({ "seq": 0, "target": "aws", "op": op, "caller": "AK", "mutating": true,
            "status": 200, "replayed": false, "fault": null, "token": token, "marked": marked });
        wrong(&serde_json::from_value(text).expect("a record"))
    };
    let ours = "ab".repeat(32);
    assert_eq!(call("eks:CreateCluster", Some(&ours), true), None);
    assert!(call("eks:CreateCluster", Some("4f6c0f5e-2b1d-4f6e-9a57-0d3f7f2f4f10"), true).is_some());
    assert!(call("eks:CreateCluster", None, true).is_some());
    assert!(call("eks:CreateCluster", Some(&ours), false).is_some());
    assert_eq!(call("ecr:CreateRepository", None, true), None);
    assert!(call("ecr:CreateRepository", None, false).is_some());
    assert!(call("sqs:CreateQueue", None, true).is_some(), "an operation nobody has looked up");
}

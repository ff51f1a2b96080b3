//! Ownership marks as the tag types of each service, and back.
//!
//! Every service has a tag type of its own that says the same. Here the marks are turned into each, and an owner is
//! read from each; what a mark means is the engine's business ([`Marks::owner_by`]).

use std::collections::{BTreeMap, HashMap};
use std::hash::BuildHasher;

use dssflow_engine::activity::{Marks, Owner};

/// What every name of ours begins with where a service cannot be searched by tag, as IAM.
pub const NAME_PREFIX: &str = "dssflow-";

/// The marks as a map, for EKS and Glue.
pub fn map(marks: &Marks) -> HashMap<String, String> {
    marks.tags().into_iter().map(|(k, v)| (k.to_owned(), v)).collect()
}

/// The marks as an ordered map, for descriptions and parameters that are compared.
pub fn ordered(marks: &Marks) -> BTreeMap<String, String> {
    marks.tags().into_iter().map(|(k, v)| (k.to_owned(), v)).collect()
}

/// The marks as a tag specification of EC2 with a `Name`.
pub fn ec2(
    marks: &Marks,
    kind: aws_sdk_ec2::types::ResourceType,
    name: &str,
) -> aws_sdk_ec2::types::TagSpecification {
    aws_sdk_ec2::types::TagSpecification::builder()
        .resource_type(kind)
        .set_tags(Some(ec2_tags(marks, name)))
        .build()
}

/// The marks as tags of EC2 with a `Name`.
pub fn ec2_tags(marks: &Marks, name: &str) -> Vec<aws_sdk_ec2::types::Tag> {
    let ours = marks.tags().into_iter().map(|(k, v)| (k.to_owned(), v));
    ours.chain([("Name".to_owned(), name.to_owned())])
        .map(|(k, v)| aws_sdk_ec2::types::Tag::builder().key(k).value(v).build())
        .collect()
}

/// The marks as tags of ECR.
pub fn ecr(marks: &Marks) -> Vec<aws_sdk_ecr::types::Tag> {
    let tags = marks.tags().into_iter();
    tags.map(|(k, v)| {
        aws_sdk_ecr::types::Tag::builder()
            .key(k)
            .value(v)
            .build()
            .expect("a tag with key and value is complete")
    })
    .collect()
}

/// The marks as tags of IAM.
pub fn iam(marks: &Marks) -> Vec<aws_sdk_iam::types::Tag> {
    let tags = marks.tags().into_iter();
    tags.map(|(k, v)| {
        aws_sdk_iam::types::Tag::builder()
            .key(k)
            .value(v)
            .build()
            .expect("a tag with key and value is complete")
    })
    .collect()
}

/// Whose a thing with this map of tags is.
pub fn owner_of_map<S: BuildHasher>(marks: &Marks, tags: Option<&HashMap<String, String, S>>) -> Owner {
    marks.owner_by(tags.into_iter().flatten().map(|(k, v)| (k.as_str(), v.as_str())))
}

/// Whose a thing with these EC2 tags is.
pub fn owner_of_ec2(marks: &Marks, tags: &[aws_sdk_ec2::types::Tag]) -> Owner {
    marks.owner_by(tags.iter().filter_map(|t| Some((t.key()?, t.value()?))))
}

/// Whose a thing with these ECR tags is.
pub fn owner_of_ecr(marks: &Marks, tags: &[aws_sdk_ecr::types::Tag]) -> Owner {
    marks.owner_by(tags.iter().map(|t| (t.key(), t.value())))
}

/// Whose a thing with these IAM tags is.
pub fn owner_of_iam(marks: &Marks, tags: &[aws_sdk_iam::types::Tag]) -> Owner {
    marks.owner_by(tags.iter().map(|t| (t.key(), t.value())))
}

/// Whose a stack with these CloudFormation tags is.
pub fn owner_of_stack(marks: &Marks, tags: &[aws_sdk_cloudformation::types::Tag]) -> Owner {
    marks.owner_by(tags.iter().filter_map(|t| Some((t.key()?, t.value()?))))
}

/// The one owner of several things that one step made: foreign if any is, ours if any is of this run.
pub fn joint_owner(owners: impl IntoIterator<Item = Owner>) -> Owner {
    let mut joint: Option<Owner> = None;
    for owner in owners {
        joint = Some(match (joint, owner) {
            (None, first) => first,
            (Some(Owner::Foreign), _) | (_, Owner::Foreign) => Owner::Foreign,
            (Some(Owner::ThisRun), _) | (_, Owner::ThisRun) => Owner::ThisRun,
            (Some(site), Owner::ThisSite(_)) => site,
        });
    }
    joint.unwrap_or(Owner::Foreign)
}

/// The partition of a region, as the second part of its ARNs.
pub fn partition(region: &str) -> &'static str {
    match region {
        r if r.starts_with("cn-") => "aws-cn",
        r if r.starts_with("us-gov-") => "aws-us-gov",
        _ => "aws",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn marks(run: &str) -> Marks {
        Marks { store: "s".into(), site: "lab".into(), run: run.into(), step: "x".into(), generation: 2 }
    }

    #[test]
    fn every_tag_type_carries_the_marks_there_and_back() {
        let ours = marks("r1");
        assert_eq!(owner_of_map(&ours, Some(&map(&ours))), Owner::ThisRun);
        assert_eq!(owner_of_ec2(&ours, &ec2_tags(&ours, "n")), Owner::ThisRun);
        assert_eq!(owner_of_ecr(&ours, &ecr(&marks("r0"))), Owner::ThisSite("r0".into()));
        assert_eq!(owner_of_iam(&ours, &iam(&ours)), Owner::ThisRun);
        assert_eq!(owner_of_map::<std::hash::RandomState>(&ours, None), Owner::Foreign);
        assert!(map(&ours).contains_key("dssflow:generation"));
    }

    #[test]
    fn a_foreign_part_makes_the_whole_foreign() {
        let site = || Owner::ThisSite("r0".into());
        assert_eq!(joint_owner([Owner::ThisRun, site()]), Owner::ThisRun);
        assert_eq!(joint_owner([site(), Owner::ThisRun, Owner::Foreign]), Owner::Foreign);
        assert_eq!(joint_owner([site()]), site());
    }

    #[test]
    fn partitions() {
        assert_eq!(
            ["eu-west-1", "cn-north-1", "us-gov-west-1"].map(partition),
            ["aws", "aws-cn", "aws-us-gov"]
        );
    }
}

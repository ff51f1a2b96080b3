//! Service Quotas, which moto cannot answer: AWS's defaults of the quotas that a bootstrap runs into.

use serde_json::json;

use super::reply::Reply;
use super::upstream::Incoming;

/// Service, code, name and AWS's default.
const QUOTAS: [(&str, &str, &str, f64); 10] = [
    ("ec2", "L-1216C47A", "Running On-Demand Standard (A, C, D, H, I, M, R, T, Z) instances", 256.0),
    ("ec2", "L-0263D0A3", "EC2-VPC Elastic IPs", 5.0),
    ("vpc", "L-F678F1CE", "VPCs per Region", 5.0),
    ("vpc", "L-FE5A380F", "NAT gateways per Availability Zone", 5.0),
    ("vpc", "L-E79EC296", "VPC security groups per Region", 2500.0),
    ("vpc", "L-0EA8095F", "Inbound or outbound rules per security group", 60.0),
    ("eks", "L-1194D53C", "Clusters", 100.0),
    ("eks", "L-6D54EA21", "Managed node groups per cluster", 30.0),
    ("cloudformation", "L-0485CB21", "Stack count", 2000.0),
    ("ecr", "L-CFEB8E8D", "Registered repositories", 100_000.0),
];

/// Answers a question for one quota.
pub(super) fn get(request: &Incoming) -> Reply {
    let body = request.json();
    let (service, code) = (body["ServiceCode"].as_str(), body["QuotaCode"].as_str());
    match QUOTAS.iter().find(|q| Some(q.0) == service && Some(q.1) == code) {
        Some((service, code, name, value)) => Reply::json(&json!({ "Quota": {
            "ServiceCode": service, "QuotaCode": code, "QuotaName": name, "Value": value, "Unit": "None",
            "Adjustable": true, "GlobalQuota": false,
        } })),
        None => Reply::error("servicequotas", 400, "NoSuchResourceException", "no such quota in the sandbox"),
    }
}

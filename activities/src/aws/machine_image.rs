//! Which machine image a host is launched from: one named by its id, or the newest of an owner whose name fits.
//!
//! It is a step of its own, so that the choice is durable before anything is launched: an image published in between
//! cannot change what a repeated launch asks for.
//!
//! Page: <https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_DescribeImages.html>

use aws_sdk_ec2::types::{Filter, Image, ImageState};
use dssflow_engine::activity::{Activity, ActivityContext, ActivityError, ActivityResult, Effect};
use serde::{Deserialize, Serialize};

use super::error::{classify, none_if};
use crate::clients::AwsClients;

/// The registered name.
pub const NAME: &str = "aws.ec2.image";

const NOT_FOUND: &[&str] = &["InvalidAMIID.NotFound", "InvalidAMIID.Malformed", "InvalidAMIID.Unavailable"];

/// What [`MachineImage`] takes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MachineImageInput {
    /// The image's id; owner and name do not count then.
    #[serde(default)]
    pub id: Option<String>,
    /// The account that publishes it, or `self`.
    #[serde(default)]
    pub owner: String,
    /// Its name, with `*` for any text.
    #[serde(default)]
    pub name: String,
}

/// The image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MachineImageOutput {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// The account that published it.
    pub owner: String,
    /// When it was made, as AWS writes it.
    pub created: String,
    /// The name of its root disk, as `/dev/sda1`.
    pub root_device: String,
}

impl MachineImageOutput {
    fn of(image: &Image) -> Self {
        let text = |value: Option<&str>| value.unwrap_or_default().to_owned();
        Self {
            id: text(image.image_id()),
            name: text(image.name()),
            owner: text(image.owner_id()),
            created: text(image.creation_date()),
            root_device: image.root_device_name().filter(|n| !n.is_empty()).unwrap_or("/dev/sda1").to_owned(),
        }
    }
}

/// The image to take: the newest that can be used on x86_64. Of two made at the same moment the later name.
fn choose(images: &[Image]) -> Option<&Image> {
    images.iter().filter(|i| misfit(i).is_none()).max_by_key(|i| {
        (
            i.creation_date().unwrap_or_default(),
            i.name().unwrap_or_default(),
            i.image_id().unwrap_or_default(),
        )
    })
}

/// Why an image cannot be used.
fn misfit(image: &Image) -> Option<String> {
    let architecture = image.architecture().map_or("", |a| a.as_str());
    if !matches!(architecture, "" | "x86_64") {
        return Some(format!("its architecture is {architecture}, DSS needs x86_64"));
    }
    match image.state() {
        None | Some(ImageState::Available) => None,
        Some(state) => Some(format!("it is {}, not available", state.as_str())),
    }
}

async fn look(clients: &AwsClients, input: &MachineImageInput) -> ActivityResult<Vec<Image>> {
    let filter = |name: &str, value: &str| Filter::builder().name(name).values(value).build();
    let call = clients.ec2().describe_images();
    let call = match &input.id {
        Some(id) => call.image_ids(id),
        None => call.owners(&input.owner).filters(filter("name", &input.name)),
    };
    let answer = none_if(call.send().await.map_err(|e| classify("ec2:DescribeImages", e)), NOT_FOUND)?;
    Ok(answer.and_then(|a| a.images).unwrap_or_default())
}

/// Finds the machine image of a launch.
///
/// # Errors
/// `ImageNotFound` when there is none, `ImageUnfit` when a named one cannot carry DSS, and the call's own errors.
pub async fn find_image(
    clients: &AwsClients,
    input: &MachineImageInput,
) -> ActivityResult<MachineImageOutput> {
    let images = look(clients, input).await?;
    if let (Some(id), Some(image)) = (&input.id, images.first()) {
        return match misfit(image) {
            None => Ok(MachineImageOutput::of(image)),
            Some(why) => Err(ActivityError::terminal("ImageUnfit", format!("image {id}: {why}"))
                .help("name an available x86_64 image in host.launch.image")
                .no_effect()),
        };
    }
    choose(&images).map(MachineImageOutput::of).ok_or_else(|| {
        let region = clients.region();
        let (text, help) = match &input.id {
            Some(id) => (
                format!("there is no image {id} in {region}, or it is not shared with this account"),
                "images are of one region: correct host.launch.image".to_owned(),
            ),
            None => (
                format!("no x86_64 image of {} in {region} is named {:?}", input.owner, input.name),
                format!(
                    "`aws ec2 describe-images --owners {} --query 'Images[].Name'` lists them; correct \
                     host.launch.image_owner and image_name, or name one in host.launch.image",
                    input.owner
                ),
            ),
        };
        ActivityError::terminal("ImageNotFound", text).help(help).no_effect()
    })
}

/// Looks up which machine image the host is launched from.
///
/// # Idempotency
/// Reads only. Its answer is durable as the step's output, and stays what it is however often the launch is repeated.
///
/// # Compensation
/// None.
///
/// Page: <https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_DescribeImages.html>
#[derive(Debug, Clone, Copy, Default)]
pub struct MachineImage;

impl Activity for MachineImage {
    type Input = MachineImageInput;
    type Output = MachineImageOutput;

    fn effect(&self) -> Effect {
        Effect::Read
    }

    async fn execute(
        &self,
        ctx: &ActivityContext,
        input: &MachineImageInput,
    ) -> ActivityResult<MachineImageOutput> {
        find_image(&*AwsClients::of(ctx)?, input).await
    }

    fn describe(&self, input: &MachineImageInput) -> String {
        match &input.id {
            Some(id) => format!("look at machine image {id}"),
            None => format!("find the newest machine image {:?} of {}", input.name, input.owner),
        }
    }
}

#[cfg(test)]
mod tests {
    use aws_sdk_ec2::types::ArchitectureValues;

    use super::*;

    fn image(id: &str, created: &str, architecture: ArchitectureValues, state: ImageState) -> Image {
        Image::builder().image_id(id).creation_date(created).architecture(architecture).state(state).build()
    }

    #[test]
    fn the_newest_that_can_be_used_is_taken() {
        use ArchitectureValues::{Arm64, X8664};
        use ImageState::{Available, Deregistered};
        let images = [
            image("ami-1", "2024-05-01T00:00:00.000Z", X8664, Available),
            image("ami-2", "2025-05-01T00:00:00.000Z", X8664, Available),
            image("ami-3", "2026-05-01T00:00:00.000Z", Arm64, Available),
            image("ami-4", "2026-06-01T00:00:00.000Z", X8664, Deregistered),
        ];
        assert_eq!(choose(&images).and_then(Image::image_id), Some("ami-2"));
        assert_eq!(choose(&images[2..]).and_then(Image::image_id), None);
        assert!(misfit(&images[2]).unwrap().contains("arm64"));
        assert!(misfit(&images[3]).unwrap().contains("deregistered"));
    }

    #[test]
    fn an_image_without_a_root_disk_has_the_usual_one() {
        let bare = Image::builder().image_id("ami-1").build();
        assert_eq!(MachineImageOutput::of(&bare).root_device, "/dev/sda1");
    }
}

//! What a run was made from: a site, or a file of images. Most of the command only wants to know which account it is
//! about, and says more of a site.

use dssflow_workflows::{ImageSpec, ResyncSpec, Site};

/// What a run was made from, as its history has it.
#[derive(Debug)]
pub(crate) enum Spec {
    /// A site.
    Site(Box<Site>),
    /// Images.
    Images(Box<ImageSpec>),
    /// What a resync takes of a site.
    Resync(Box<ResyncSpec>),
}

/// What a run is about, looked at.
#[derive(Debug, Clone, Copy)]
pub(crate) enum About<'a> {
    /// A site.
    Site(&'a Site),
    /// Images.
    Images(&'a ImageSpec),
    /// What a resync takes of a site.
    Resync(&'a ResyncSpec),
}

impl<'a> About<'a> {
    /// The site, if it is about one.
    pub(crate) fn site(self) -> Option<&'a Site> {
        match self {
            Self::Site(site) => Some(site),
            Self::Images(_) | Self::Resync(_) => None,
        }
    }

    /// Where AWS is, when it is not AWS itself.
    pub(crate) fn endpoint(self) -> Option<&'a String> {
        match self {
            Self::Site(site) => site.aws.endpoint_url.as_ref(),
            Self::Images(images) => images.aws.endpoint_url.as_ref(),
            Self::Resync(spec) => spec.aws.endpoint_url.as_ref(),
        }
    }

    /// What a set of runs builds and owns together.
    pub(crate) fn name(self) -> &'a str {
        match self {
            Self::Site(site) => &site.name,
            Self::Images(images) => &images.name,
            Self::Resync(spec) => &spec.name,
        }
    }

    /// The AWS account everything must happen in, when there is one.
    pub(crate) fn account(self) -> Option<&'a str> {
        match self {
            Self::Site(site) => Some(dssflow_workflows::required_account(site)),
            Self::Images(images) => images.account().map(|(account, _)| account),
            Self::Resync(spec) => Some(&spec.expected_account),
        }
    }
}

impl<'a> From<&'a Site> for About<'a> {
    fn from(site: &'a Site) -> Self {
        Self::Site(site)
    }
}

impl<'a> From<&'a ImageSpec> for About<'a> {
    fn from(images: &'a ImageSpec) -> Self {
        Self::Images(images)
    }
}

impl<'a> From<&'a ResyncSpec> for About<'a> {
    fn from(spec: &'a ResyncSpec) -> Self {
        Self::Resync(spec)
    }
}

impl<'a> From<&'a Spec> for About<'a> {
    fn from(spec: &'a Spec) -> Self {
        match spec {
            Spec::Site(site) => Self::Site(site),
            Spec::Images(images) => Self::Images(images),
            Spec::Resync(spec) => Self::Resync(spec),
        }
    }
}

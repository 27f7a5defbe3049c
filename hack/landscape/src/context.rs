//! What every part of a landscape works with: its folders, slot, programs, keys and processes.

use std::path::PathBuf;

use crate::cluster::Cluster;
use crate::error::Result;
use crate::http;
use crate::pki::{Key, Pki};
use crate::place::Place;
use crate::process::Processes;
use crate::programs::Programs;
use crate::settings::Settings;
use crate::slot::Slot;

/// One landscape's means.
#[derive(Debug, Clone)]
pub(crate) struct Context {
    pub(crate) name: String,
    pub(crate) place: Place,
    pub(crate) slot: Slot,
    pub(crate) settings: Settings,
    pub(crate) programs: Programs,
    pub(crate) pki: Pki,
    pub(crate) processes: Processes,
    pub(crate) http: reqwest::Client,
}

impl Context {
    pub(crate) fn new(name: &str, place: Place, slot: Slot, programs: Programs) -> Result<Self> {
        let pki = Pki::new(place.pki());
        let authority = pki.authority("ca", Key::Ec)?;
        let settings = Settings::ensure(&place.state)?;
        let processes = Processes::new(slot.folder().join("processes"), place.logs());
        let http = http::client(&authority.pair.certificate)?;
        Ok(Self { name: name.to_owned(), place, slot, settings, programs, pki, processes, http })
    }

    /// The certificate that everybody trusts.
    pub(crate) fn authority(&self) -> PathBuf {
        self.pki.pair("ca").certificate
    }

    /// The token issuer of a cluster that its Shoot's uid does not decide.
    pub(crate) fn standalone_issuer(&self, cluster: Cluster) -> String {
        format!("{}/clusters/{cluster}", self.slot.discovery())
    }

    /// The managed issuer of a Shoot, in the form that Gardener gives it.
    pub(crate) fn managed_issuer(&self, project: &str, uid: &str) -> String {
        format!("{}/projects/{project}/shoots/{uid}/issuer", self.slot.discovery())
    }
}

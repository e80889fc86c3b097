//! The flags of commands that read the settings.

use super::{Exit, Failure};
use crate::config::{self, Loaded, Overrides};
use clap::Args;
use std::path::PathBuf;

/// Where the settings are and what stands above them.
#[derive(Clone, Debug, Args)]
pub struct SettingsArgs {
    /// The settings file
    #[arg(long, short, value_name = "FILE", env = "SLUICEBOX_CONFIG", default_value = config::FILE_NAME)]
    pub config: PathBuf,
    /// Listen for HTTP here instead of where the file says
    #[arg(long, value_name = "ADDRESS:PORT", env = "SLUICEBOX_LISTEN")]
    pub listen: Option<String>,
    /// Keep the embedded log in this directory instead of where the file says
    #[arg(long, value_name = "DIR", env = "SLUICEBOX_DATA")]
    pub data: Option<PathBuf>,
}

impl SettingsArgs {
    pub fn overrides(&self) -> Overrides {
        Overrides { listen: self.listen.clone(), data: self.data.clone() }
    }

    /// Reads the settings; what is wrong with them becomes the failure.
    pub fn load(&self) -> Result<Loaded, Failure> {
        config::load(&self.config, &self.overrides()).map_err(|problems| Failure::new(Exit::BadSettings, problems))
    }
}

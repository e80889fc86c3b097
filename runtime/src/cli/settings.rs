//! The flags of commands that read the settings.

use super::failure::{Exit, Failure};
use crate::config::{self, Loaded, Overrides};
use clap::Args;
use std::path::PathBuf;

/// Where the settings are and what stands above them.
#[derive(Clone, Debug, Args)]
pub struct SettingsArgs {
    /// The settings file
    #[arg(long, short, value_name = "FILE", env = "SLUICEBOX_CONFIG", default_value = config::FILE_NAME)]
    pub config: PathBuf,
    #[command(flatten)]
    pub above: AboveArgs,
}

/// What stands above the file: flags over variables. Each is declared with its setting.
#[derive(Clone, Debug, Args)]
pub struct AboveArgs {
    /// Listen for HTTP here instead of where the file says
    #[arg(long, value_name = "ADDRESS:PORT", env = "SLUICEBOX_LISTEN")]
    listen: Option<String>,
    /// Keep the embedded log in this directory instead of where the file says
    #[arg(long, value_name = "DIR", env = "SLUICEBOX_DATA")]
    data: Option<PathBuf>,
    /// Want the token in this file of everyone who asks by HTTP, whatever the settings file says
    #[arg(long, value_name = "FILE", env = "SLUICEBOX_TOKEN_FILE")]
    token_file: Option<PathBuf>,
    /// Call the log by this name instead of the one in the file
    #[arg(long, value_name = "NAME", env = "SLUICEBOX_NAMESPACE")]
    namespace: Option<String>,
    /// Call this host by this name instead of the one in the file
    #[arg(long, value_name = "NAME", env = "SLUICEBOX_HOST_NAME")]
    host_name: Option<String>,
}

impl AboveArgs {
    pub fn overrides(&self) -> Overrides {
        let Self { listen, data, token_file, namespace, host_name } = self.clone();
        Overrides { namespace, listen, data, token_file, host_name, log: None, accept_clock: false }
    }
}

impl SettingsArgs {
    /// Reads the settings; what is wrong with them becomes the failure.
    pub fn load(&self) -> Result<Loaded, Failure> {
        self.load_with(&self.above.overrides())
    }

    /// As `load`, with more above the file.
    pub fn load_with(&self, overrides: &Overrides) -> Result<Loaded, Failure> {
        config::load(&self.config, overrides).map_err(|problems| Failure::new(Exit::BadSettings, problems))
    }
}

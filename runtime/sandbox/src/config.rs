//! `wasi:config/store`: the handler's `config` table.

use super::bindings::wasi::config::store::{self, Error};
use super::host::Host;

impl store::Host for Host {
    fn get(&mut self, key: String) -> Result<Option<String>, Error> {
        let config = &self.settings().config;
        Ok(config.iter().find(|(name, _)| *name == key).map(|(_, value)| value.clone()))
    }

    fn get_all(&mut self) -> Result<Vec<(String, String)>, Error> {
        Ok(self.settings().config.clone())
    }
}

//! Passwords: Argon2id with OWASP's parameters, on a pool no wider than the machine.
//!
//! Each hash takes 19 MiB and some tens of milliseconds, so that at most one runs on each core.
//! Checking a password takes the same time whether or not the account (or its password) exists.

use std::sync::Arc;

use argon2::{
    Algorithm, Argon2, Params, PasswordHash, PasswordHasher, PasswordVerifier, Version,
    password_hash::SaltString,
};
use tokio::sync::Semaphore;

use super::secret;
use crate::error::ApiError;

/// Passwords longer than this are refused: nobody types them.
const PASSWORD_BYTES_MAX: usize = 1_024;

/// What an account without a password is checked against. No password is known that fits it.
const NOBODY: &str = concat!(
    "$argon2id$v=19$m=19456,t=2,p=1$",
    "AAAAAAAAAAAAAAAAAAAAAA$",
    "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
);

/// Makes and checks the hashes of passwords.
#[derive(Clone, Debug)]
pub(super) struct Passwords {
    slots: Arc<Semaphore>,
}

impl Default for Passwords {
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self { slots: Arc::new(Semaphore::new(cores)) }
    }
}

impl Passwords {
    /// The hash of a new password in PHC form.
    pub(super) async fn hash(&self, password: &str) -> Result<String, ApiError> {
        if password.is_empty() {
            return Err(ApiError::weak_password("The password is empty"));
        }
        if password.len() > PASSWORD_BYTES_MAX {
            return Err(ApiError::invalid_param("The password is too long"));
        }
        let password = password.to_owned();
        self.run(move || {
            let salt = SaltString::encode_b64(&secret::random::<16>())?;
            Ok(hasher().hash_password(password.as_bytes(), &salt)?.to_string())
        })
        .await
    }

    /// Whether the password fits. Takes as long where there is none stored.
    pub(super) async fn verify(
        &self,
        password: &str,
        stored: Option<&str>,
    ) -> Result<bool, ApiError> {
        if password.len() > PASSWORD_BYTES_MAX {
            return Ok(false);
        }
        let exists = stored.is_some();
        let (password, stored) = (password.to_owned(), stored.unwrap_or(NOBODY).to_owned());
        let fits = self
            .run(move || {
                let parsed = PasswordHash::new(&stored)?;
                Ok(hasher().verify_password(password.as_bytes(), &parsed).is_ok())
            })
            .await?;
        Ok(fits && exists)
    }

    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, argon2::password_hash::Error> + Send + 'static,
    ) -> Result<T, ApiError> {
        let permit = Arc::clone(&self.slots).acquire_owned().await.map_err(ApiError::internal)?;
        // The permit goes along: work whose request is gone still occupies its core.
        let worked = tokio::task::spawn_blocking(move || {
            let result = work();
            drop(permit);
            result
        });
        let result = worked.await.map_err(ApiError::internal)?;
        result.map_err(|error| ApiError::internal_text(format!("hashing a password: {error}")))
    }
}

fn hasher() -> Argon2<'static> {
    let params = Params::new(19 * 1024, 2, 1, None).expect("these are within Argon2's limits");
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_password_fits_its_hash_alone() {
        let passwords = Passwords::default();
        let stored = passwords.hash("correct horse").await.unwrap();
        assert!(stored.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"));
        assert!(passwords.verify("correct horse", Some(&stored)).await.unwrap());
        assert!(!passwords.verify("wrong horse", Some(&stored)).await.unwrap());
        assert!(!passwords.verify("correct horse", None).await.unwrap());
        assert!(passwords.hash("").await.is_err());
    }
}

//! The server's own signing keys: kept in the database, made at the first start, importable from
//! another homeserver's key file, published together with the old ones.
//!
//! <https://spec.matrix.org/v1.19/server-server-api/#retrieving-server-keys>

use base64::{Engine, engine::general_purpose::STANDARD_NO_PAD};
use kv::{Batch, Direction, Durability, Json, Store};
use ruma::{
    CanonicalJsonObject, MilliSecondsSinceUnixEpoch, OwnedServerName, ServerName,
    signatures::{Ed25519KeyPair, sign_json},
};
use serde_json::{Map, Value, json};

use crate::{
    error::ApiError,
    storage::schema::server::{SIGNING_KEYS, SigningKeyRow},
    time::Clock,
};

/// How long the published keys are said to be valid, in milliseconds: a day, so that a change of
/// keys is known everywhere soon.
const VALIDITY_MS: u32 = 24 * 60 * 60 * 1000;
/// How many keys a server may have had.
const KEYS_MAX: usize = 1000;

/// Who signs: the server's name and its key.
pub struct Signer {
    /// The name of this server.
    pub server_name: OwnedServerName,
    /// The key.
    pub key_pair: Ed25519KeyPair,
}

impl std::fmt::Debug for Signer {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "Signer({})", self.server_name)
    }
}

/// Reads the key that signs now, or makes one.
pub async fn open(
    store: &Store,
    server_name: &ServerName,
    clock: &Clock,
) -> Result<Signer, ApiError> {
    let rows = rows(store).await?;
    let row = if let Some(row) = rows.into_iter().find(|row| row.expired_ts.is_none()) {
        row
    } else {
        let der = Ed25519KeyPair::generate();
        let pair = key_pair(&der, "new")?;
        // A version that tells keys apart, also those of a server that was set up anew.
        let text = STANDARD_NO_PAD.encode(pair.public_key());
        let version: String = text.chars().filter(char::is_ascii_alphanumeric).take(6).collect();
        add(store, &der, version, clock).await?
    };
    Ok(Signer { server_name: server_name.to_owned(), key_pair: key_pair(&row.der, &row.version)? })
}

/// Takes over the key of another homeserver that had this server's name: a line
/// `ed25519 VERSION SEED` with the seed in unpadded base64. Older keys sign no more and stay
/// published.
///
/// # Errors
/// 400 when the line is no such key.
pub async fn import(store: &Store, line: &str, clock: &Clock) -> Result<(), ApiError> {
    let bad = |what: &'static str| ApiError::invalid_param(what);
    let mut words = line.split_whitespace();
    let (Some("ed25519"), Some(version), Some(seed), None) =
        (words.next(), words.next(), words.next(), words.next())
    else {
        return Err(bad("A key is a line `ed25519 VERSION SEED`"));
    };
    let seed: [u8; 32] = STANDARD_NO_PAD
        .decode(seed.trim_end_matches('='))
        .ok()
        .and_then(|bytes| bytes.try_into().ok())
        .ok_or_else(|| bad("The seed of the key is not 32 bytes in base64"))?;
    // PKCS#8, version 1: this header and the seed.
    let mut der = vec![
        0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04,
        0x20,
    ];
    der.extend_from_slice(&seed);
    key_pair(&der, version)?;
    add(store, &der, version.to_owned(), clock).await?;
    Ok(())
}

async fn add(
    store: &Store,
    der: &[u8],
    version: String,
    clock: &Clock,
) -> Result<SigningKeyRow, ApiError> {
    let now: u64 = clock.now().0.into();
    let mut batch = Batch::new();
    for old in rows(store).await?.into_iter().filter(|row| row.expired_ts.is_none()) {
        let expired = SigningKeyRow { expired_ts: Some(now), ..old };
        batch.put(&SIGNING_KEYS, &expired.version.clone(), &Json(expired));
    }
    let row = SigningKeyRow {
        der: der.to_vec(),
        version: version.clone(),
        created_ts: now,
        expired_ts: None,
    };
    batch.put(&SIGNING_KEYS, &version, &Json(row.clone()));
    store.commit(batch, Durability::Synced).await?;
    Ok(row)
}

async fn rows(store: &Store) -> Result<Vec<SigningKeyRow>, ApiError> {
    let rows = store
        .read(|reader| {
            let all = SIGNING_KEYS.prefix(&());
            Ok::<_, ApiError>(reader.scan(&SIGNING_KEYS, &all, Direction::Forward, KEYS_MAX)?)
        })
        .await?;
    Ok(rows.into_iter().map(|(_, row)| row.0).collect())
}

fn key_pair(der: &[u8], version: &str) -> Result<Ed25519KeyPair, ApiError> {
    Ed25519KeyPair::from_der(der, version.to_owned())
        .map_err(|error| ApiError::internal_text(format!("a signing key is unreadable: {error}")))
}

/// The document that publishes the keys, signed.
///
/// <https://spec.matrix.org/v1.19/server-server-api/#publishing-keys>
pub async fn document(
    store: &Store,
    signer: &Signer,
    clock: &Clock,
) -> Result<CanonicalJsonObject, ApiError> {
    let now = clock.now();
    let (mut verify_keys, mut old_verify_keys) = (Map::new(), Map::new());
    for row in rows(store).await? {
        let key = STANDARD_NO_PAD.encode(key_pair(&row.der, &row.version)?.public_key());
        let name = format!("ed25519:{}", row.version);
        match row.expired_ts {
            None => verify_keys.insert(name, json!({ "key": key })),
            Some(expired_ts) => {
                old_verify_keys.insert(name, json!({ "key": key, "expired_ts": expired_ts }))
            }
        };
    }
    let valid_until = MilliSecondsSinceUnixEpoch(now.0.saturating_add(VALIDITY_MS.into()));
    let document = json!({
        "server_name": signer.server_name,
        "verify_keys": Value::Object(verify_keys),
        "old_verify_keys": Value::Object(old_verify_keys),
        "valid_until_ts": valid_until,
    });
    let mut object: CanonicalJsonObject =
        serde_json::from_value(document).map_err(ApiError::internal)?;
    sign_json(signer.server_name.as_str(), &signer.key_pair, &mut object)
        .map_err(|error| ApiError::internal_text(format!("the keys were not signed: {error}")))?;
    Ok(object)
}

#[cfg(test)]
mod tests {
    use ruma::{UInt, server_name};

    use super::*;
    use crate::storage::schema::FAMILIES;

    #[tokio::test]
    async fn an_imported_key_signs_and_the_old_one_stays_published() {
        let store = Store::memory(&FAMILIES);
        let clock = Clock::manual(MilliSecondsSinceUnixEpoch(UInt::from(1_700_000_000_u32)));
        let name = server_name!("hs1");
        let first = open(&store, name, &clock).await.unwrap();
        let again = open(&store, name, &clock).await.unwrap();
        assert_eq!(first.key_pair.public_key(), again.key_pair.public_key());
        let seed = STANDARD_NO_PAD.encode([9; 32]);
        import(&store, &format!("ed25519 a_old {seed}\n"), &clock).await.unwrap();
        let imported = open(&store, name, &clock).await.unwrap();
        assert_eq!(imported.key_pair.version(), "a_old");
        let document = document(&store, &imported, &clock).await.unwrap();
        let text = serde_json::to_string(&document).unwrap();
        assert!(
            text.contains(&format!("\"ed25519:{}\":{{\"expired_ts\"", first.key_pair.version()))
        );
        assert!(text.contains("\"verify_keys\":{\"ed25519:a_old\""));
        assert!(import(&store, "ed25519 a zzz", &clock).await.is_err());
    }
}

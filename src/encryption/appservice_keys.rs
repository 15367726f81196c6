//! Keys that application services keep for their users themselves: asked for when they are needed,
//! and checked before they are passed on (MSC3983, MSC3984).
//!
//! All application services of a request are asked at once; whoever does not answer soon has
//! nothing to say, and what this server has is answered. Of an answer counts only what was asked
//! for: these users, these devices. That no one-time key is given twice is up to who gives it.
//!
//! <https://github.com/matrix-org/matrix-spec-proposals/pull/3983>

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use futures::future::join_all;
use ruma::{OwnedUserId, UserId};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::value::RawValue;

use super::{
    Parts,
    claim::ClaimedKey,
    device_keys::NewDeviceKeys,
    one_time_keys::NewKey,
    query::{Target, ToldKeys},
};
use crate::{
    appservices::{Appservice, KeyQuestion},
    storage::schema::{encryption::DeviceAlgorithmKey, users::DeviceKey},
};

/// The most devices of a user of which an application service may tell.
const DEVICES_MAX: usize = 1_000;

/// Something for each user.
type ByUser<T> = BTreeMap<String, T>;
/// One-time keys by user, device and id.
type OneTimeKeys = ByUser<BTreeMap<String, BTreeMap<String, Box<RawValue>>>>;

/// What an application service says of keys.
#[expect(clippy::struct_field_names, reason = "the specification's names")]
#[derive(Default, Deserialize)]
#[serde(default)]
struct Answer {
    device_keys: ByUser<BTreeMap<String, Box<RawValue>>>,
    master_keys: ByUser<Box<RawValue>>,
    self_signing_keys: ByUser<Box<RawValue>>,
    user_signing_keys: ByUser<Box<RawValue>>,
}

/// What is asked of each application service.
struct Questions<T>(HashMap<Arc<str>, (Arc<Appservice>, T)>);

impl<T: Default + Serialize> Questions<T> {
    fn of(&mut self, appservice: Arc<Appservice>) -> &mut T {
        let id = appservice.id.clone();
        &mut self.0.entry(id).or_insert_with(|| (appservice, T::default())).1
    }
}

impl Parts {
    /// Whether an application service is to be asked for one-time keys of a user, of which this
    /// server has none.
    pub(super) fn asks_for_claims(&self, user_id: &str) -> bool {
        keeper(self, user_id, KeyQuestion::Claim).is_some()
    }

    /// One-time keys of devices from those who keep them.
    pub(super) async fn ask_for_claims(&self, wanted: &[DeviceAlgorithmKey]) -> Vec<ClaimedKey> {
        type Wanted = ByUser<BTreeMap<String, Vec<String>>>;
        let mut questions = Questions::<Wanted>(HashMap::new());
        let mut asked = Vec::new();
        for queue in wanted {
            let DeviceAlgorithmKey { user_id, device_id, algorithm } = queue;
            let Some(keeper) = keeper(self, user_id, KeyQuestion::Claim) else { continue };
            asked.push((keeper.id.clone(), queue));
            let devices = questions.of(keeper).entry(user_id.clone()).or_default();
            devices.entry(device_id.clone()).or_default().push(algorithm.clone());
        }
        let answers = self.ask_all(KeyQuestion::Claim, questions).await;
        let claimed = asked.into_iter().filter_map(|(id, queue)| claimed(answers.get(&id)?, queue));
        claimed.collect()
    }

    /// What those who keep keys themselves say of users; none for others.
    pub(super) async fn ask_for_keys(
        &self,
        asker: &UserId,
        wanted: &[Target],
    ) -> HashMap<OwnedUserId, ToldKeys> {
        let mut questions = Questions::<ByUser<Vec<String>>>(HashMap::new());
        let mut targets = Vec::new();
        for target in wanted {
            let user_id = target.user_id.as_str();
            let Some(keeper) = keeper(self, user_id, KeyQuestion::Query) else { continue };
            targets.push((keeper.id.clone(), target));
            let devices = target.devices.iter().map(ToString::to_string).collect();
            questions.of(keeper).insert(user_id.to_owned(), devices);
        }
        let mut answers: HashMap<_, Answer> = self.ask_all(KeyQuestion::Query, questions).await;
        let told = targets.into_iter().filter_map(|(id, target)| {
            let keys = self.told_keys(answers.get_mut(&id)?, target, asker)?;
            Some((target.user_id.clone(), keys))
        });
        told.collect()
    }

    /// The answers of those that gave one, by their ids.
    async fn ask_all<T: DeserializeOwned, Q: Serialize>(
        &self,
        question: KeyQuestion,
        questions: Questions<Q>,
    ) -> HashMap<Arc<str>, T> {
        let asked = questions.0.into_iter().map(async |(id, (appservice, body))| {
            let body = serde_json::to_vec(&body).ok()?;
            let answer = self.appservices.ask_keys(&appservice, question, body.into()).await?;
            Some((id, answer))
        });
        join_all(asked).await.into_iter().flatten().collect()
    }

    /// What an answer says of a user, as far as it was asked for and is what it should be.
    fn told_keys(&self, answer: &mut Answer, target: &Target, asker: &UserId) -> Option<ToldKeys> {
        let user = target.user_id.to_string();
        let mut told = ToldKeys::default();
        let devices = answer.device_keys.remove(&user).unwrap_or_default();
        for (device_id, raw) in devices.into_iter().take(DEVICES_MAX) {
            let is_wanted =
                target.devices.is_empty() || target.devices.iter().any(|id| *id == *device_id);
            let device = DeviceKey { user_id: user.clone(), device_id };
            if !is_wanted {
                continue;
            }
            match NewDeviceKeys::parse(&raw, &device, &self.config) {
                Ok(keys) => {
                    told.devices.insert(device.device_id, (keys.into_json(), name_in(&raw)));
                }
                Err(error) => {
                    let DeviceKey { user_id, device_id } = device;
                    tracing::warn!(user_id, device_id, %error, "keys of a device are not valid");
                }
            }
        }
        let size_bytes_max = self.config.device_keys_size_bytes_max;
        let cross_signing = |keys: &mut ByUser<Box<RawValue>>, usage: &str| {
            let raw = keys.remove(&user)?;
            (raw.get().len() <= size_bytes_max && is_cross_signing_key(&raw, &user, usage))
                .then(|| raw.get().as_bytes().to_vec())
        };
        told.cross_signing.master = cross_signing(&mut answer.master_keys, "master");
        told.cross_signing.self_signing =
            cross_signing(&mut answer.self_signing_keys, "self_signing");
        if *asker == target.user_id {
            told.cross_signing.user_signing =
                cross_signing(&mut answer.user_signing_keys, "user_signing");
        }
        (!told.is_empty()).then_some(told)
    }
}

fn keeper(parts: &Parts, user_id: &str, question: KeyQuestion) -> Option<Arc<Appservice>> {
    let user_id = <&UserId>::try_from(user_id).ok()?;
    parts.appservices.keeper_of_keys(user_id, question)
}

/// The first key of a device and algorithm in an answer.
fn claimed(answer: &OneTimeKeys, queue: &DeviceAlgorithmKey) -> Option<ClaimedKey> {
    let keys = answer.get(&queue.user_id)?.get(&queue.device_id)?;
    keys.iter().find_map(|(id, raw)| {
        let NewKey { algorithm, key_id, json } = NewKey::parse(id, raw).ok()?;
        (algorithm == queue.algorithm).then(|| ClaimedKey {
            queue: queue.clone(),
            key_id,
            key: json,
        })
    })
}

/// The name that the keys of a device bring along.
fn name_in(raw: &RawValue) -> Option<String> {
    #[derive(Deserialize)]
    struct Named {
        unsigned: Option<Unsigned>,
    }
    #[derive(Deserialize)]
    struct Unsigned {
        device_display_name: Option<String>,
    }
    serde_json::from_str::<Named>(raw.get()).ok()?.unsigned?.device_display_name
}

/// Whether JSON is a cross-signing key of a user.
fn is_cross_signing_key(raw: &RawValue, user: &str, usage: &str) -> bool {
    #[derive(Deserialize)]
    struct Fields {
        user_id: String,
        usage: Vec<String>,
        keys: BTreeMap<String, String>,
    }
    let fields: Result<Fields, _> = serde_json::from_str(raw.get());
    fields.is_ok_and(|fields| {
        fields.user_id == user
            && fields.keys.len() == 1
            && fields.usage.iter().any(|known| known == usage)
    })
}

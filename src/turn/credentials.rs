//! Time-limited credentials (draft-uberti-behave-turn-rest-00, section 2.2): the user name says until when it holds and
//! for whom, the password is its HMAC. Nothing is kept of what was given out.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use hmac::{Hmac, Mac};
use rand::RngCore;
use sha1::Sha1;

/// How long credentials hold for new allocations and their refreshing: longer than a day's meetings.
pub const LIFETIME: Duration = Duration::from_secs(12 * 3600);

/// A user name with its password.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credentials {
    /// `<end in seconds since 1970>:<client>`
    pub username: String,
    /// The HMAC-SHA1 of the user name, hexadecimal.
    pub password: String,
}

/// The key of one run of the server: credentials end with it.
#[derive(Clone)]
pub struct Secret([u8; 32]);

impl Secret {
    /// A random one.
    pub fn random() -> Self {
        let mut key = [0; 32];
        rand::rng().fill_bytes(&mut key);
        Secret(key)
    }

    /// For `client`, from `now` on.
    pub fn issue(&self, client: &str, now: SystemTime) -> Credentials {
        let end = seconds(now + LIFETIME);
        let username = format!("{end}:{client}");
        Credentials {
            password: self.sign(&username),
            username,
        }
    }

    /// The password of a user name that holds at `now`.
    pub fn password(&self, username: &str, now: SystemTime) -> Option<String> {
        let (end, _) = username.split_once(':')?;
        let end: u64 = end.parse().ok()?;
        (end > seconds(now)).then(|| self.sign(username))
    }

    fn sign(&self, username: &str) -> String {
        let mut mac = Hmac::<Sha1>::new_from_slice(&self.0).expect("HMAC takes keys of any length");
        mac.update(username.as_bytes());
        let digest = mac.finalize().into_bytes();
        digest.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

/// The client of a user name.
pub fn client_of(username: &str) -> &str {
    username
        .split_once(':')
        .map_or(username, |(_, client)| client)
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_follows_from_its_name_until_its_time_is_over() {
        let (secret, now) = (Secret::random(), SystemTime::now());
        let given = secret.issue("c0ffee", now);
        assert_eq!(client_of(&given.username), "c0ffee");
        let later = |time| secret.password(&given.username, now + time);
        assert_eq!(later(Duration::ZERO), Some(given.password.clone()));
        assert_eq!(
            later(LIFETIME - Duration::from_secs(1)),
            Some(given.password)
        );
        assert_eq!(later(LIFETIME + Duration::from_secs(1)), None);
    }

    #[test]
    fn nobody_makes_a_name_of_their_own_or_of_another_run() {
        let (secret, now) = (Secret::random(), SystemTime::now());
        let given = secret.issue("a", now);
        assert_ne!(Secret::random().issue("a", now).password, given.password);
        for name in [
            "",
            "a",
            ":a",
            "x:a",
            "-1:a",
            "99999999999999999999:a",
            "0:a",
        ] {
            assert_eq!(secret.password(name, now), None, "{name}");
        }
    }
}

//! Reports of provisioners that replicas share through a real Valkey or Redis server.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use simulator::{Simulator, World};

use crate::replicas::Server;
use crate::reports::{put, report};
use crate::support::{Proxy, until};

/// All kinds of characters that a name can have.
const NAME: &str = "0.a_b-c";
const PAGES: (&str, &str) = ("DASHBOARD_ENABLED", "true");
const FORGED: &str = "was not written by a replica; it is removed";

fn path(name: &str) -> String {
    format!("/api/provisioners/{name}/status")
}

/// A report with usage, of which a sample is made.
fn with_usage(ago: i64) -> Value {
    let mut report = report(ago);
    report["resources"] = json!([{
        "id": "11111111-1111-4111-8111-111111111111", "system": "capstor", "path": "/capstor/a", "observed": "present",
        "usage": {"bytes": 5, "inodes": 1},
    }]);
    report
}

async fn knows(replica: &Proxy, name: &str) -> bool {
    let line = format!("\nhpc_storage_proxy_provisioner_silent{{provisioner=\"{name}\"}} 0\n");
    replica.get("/metrics").await.text.contains(&line)
}

async fn learns(replica: &Proxy, name: &str) {
    until("the report arrives", async || knows(replica, name).await).await;
}

impl Server {
    async fn stamp(&self, field: &str) -> Option<String> {
        let key = self.key("stamps").await?;
        self.ask(&["HGET", &key, field]).await
    }

    async fn has(&self, field: &str) {
        until("it is published", async || self.stamp(field).await.is_some()).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_report_shows_at_all_replicas_and_survives_their_restart() {
    let Some(server) = Server::start().await else { return };
    let simulator = Simulator::start(World::demo()).await;
    let (one, other) = (server.replica(&simulator, &[PAGES]).await, server.replica(&simulator, &[PAGES]).await);
    assert_eq!(put(&one, &path(NAME), with_usage(0).to_string()).await.status, 204);
    assert_eq!(put(&other, &path("tape"), report(10).to_string()).await.status, 204);
    for replica in [&one, &other] {
        for name in [NAME, "tape"] {
            learns(replica, name).await;
            assert!(replica.get("/ui/").await.text.contains(name), "{name}");
            let older = put(replica, &path(name), report(60).to_string()).await;
            assert_eq!(older.status, 409, "{}", older.text);
        }
    }
    let samples = format!("{NAME} samples");
    server.has(&samples).await;
    let before = server.stamp(&samples).await;
    let kept: i64 = server.ask(&["PTTL", &server.key("reports").await.unwrap()]).await;
    assert!((600_000_000..=604_800_000).contains(&kept), "{kept}");
    let values: Vec<Vec<u8>> = server.ask(&["HVALS", &server.key("reports").await.unwrap()]).await;
    assert!(!values.iter().any(|value| String::from_utf8_lossy(value).contains("nextWithin")));

    drop((one, other));
    // An upgrade often comes with other settings.
    let later = server.replica(&simulator, &[PAGES, ("STORAGE_FILE_SYSTEM", "gpfs")]).await;
    learns(&later, NAME).await;
    learns(&later, "tape").await;
    // It has the samples too, since it publishes them when the server has lost everything.
    until("the samples are fetched and published again", async || {
        let _: String = server.ask(&["FLUSHALL"]).await;
        let published = Instant::now();
        while published.elapsed() < Duration::from_secs(6) {
            if server.stamp(&samples).await == before {
                return true;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        false
    })
    .await;
    server.has("tape").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_with_another_token_share_no_reports() {
    let Some(server) = Server::start().await else { return };
    let simulator = Simulator::start(World::demo()).await;
    let one = server.replica(&simulator, &[]).await;
    let other = server.replica(&simulator, &[("WALDUR_API_TOKEN", &"a".repeat(40))]).await;
    put(&one, &path("alps"), report(0).to_string()).await;
    put(&other, &path("tape"), report(0).to_string()).await;
    until("both are published", async || {
        server.ask::<Vec<String>>(&["KEYS", "hpc-storage-proxy:*:stamps"]).await.len() == 2
    })
    .await;
    assert!(!knows(&one, "tape").await && !knows(&other, "alps").await);
}

#[tokio::test(flavor = "multi_thread")]
async fn reports_are_accepted_while_the_server_is_away_and_shared_afterwards() {
    let Some(mut server) = Server::start().await else { return };
    let simulator = Simulator::start(World::demo()).await;
    let (one, other) = (server.replica(&simulator, &[]).await, server.replica(&simulator, &[]).await);
    put(&one, &path("before"), report(0).to_string()).await;
    learns(&other, "before").await;
    server.stop();
    let start = Instant::now();
    assert_eq!(put(&one, &path("one"), report(0).to_string()).await.status, 204);
    assert_eq!(put(&other, &path("other"), report(0).to_string()).await.status, 204);
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    assert!(knows(&one, "one").await && knows(&other, "other").await);
    until("both notice it", async || {
        [&one, &other].iter().all(|replica| replica.log().contains("shared cache is unavailable for reports"))
    })
    .await;
    // It comes back empty.
    server.start_again().await;
    learns(&one, "other").await;
    learns(&other, "one").await;
    server.has("before").await;
    for replica in [&one, &other] {
        assert_eq!(replica.log().matches("shared cache is unavailable for reports").count(), 1, "{}", replica.log());
    }
}

/// Anyone with write access to the server can create any values.
#[tokio::test(flavor = "multi_thread")]
async fn forged_reports_are_removed_and_the_right_ones_published_again() {
    let Some(server) = Server::start().await else { return };
    let simulator = Simulator::start(World::demo()).await;
    let replica = server.replica(&simulator, &[]).await;
    for name in ["alps", "tape"] {
        put(&replica, &path(name), with_usage(0).to_string()).await;
        server.has(&format!("{name} samples")).await;
    }
    let right = server.stamp("alps").await.unwrap();
    let [stamps, values] = ["stamps", "reports"].map(async |end| server.key(end).await.unwrap());
    let (stamps, values) = (stamps.await, values.await);
    let write = "redis.call('HSET', KEYS[1], 'alps', ARGV[1]) redis.call('HSET', KEYS[2], 'alps', ARGV[2]) return 1";
    let soon = time::OffsetDateTime::now_utc().unix_timestamp_nanos() / 1000 + 60_000_000;
    let newer = format!("{soon}.{soon}");
    let swap = "redis.call('HSET', KEYS[1], 'alps', ARGV[1])
        return redis.call('HSET', KEYS[2], 'alps', redis.call('HGET', KEYS[2], 'tape'))";
    let many =
        "for i = 1, 300 do redis.call('HSET', KEYS[1], 'x' .. i, '1.1') redis.call('HSET', KEYS[2], 'x' .. i, '') end";
    let large = "redis.call('HSET', KEYS[1], 'alps', ARGV[1])
        return redis.call('HSET', KEYS[2], 'alps', string.rep(string.rep('x', 65536), 1280))";
    let warnings = || replica.log().matches(FORGED).count();
    for (command, logged) in [
        (&["EVAL", write, "2", &stamps, &values, &newer, "nonsense"][..], true),
        (&["EVAL", write, "2", &stamps, &values, "nonsense", "nonsense"], true),
        (&["EVAL", swap, "2", &stamps, &values, &newer], true),
        (&["EVAL", large, "2", &stamps, &values, &newer], true),
        (&["EVAL", write, "2", &stamps, &values, &"9".repeat(1000), ""], false),
        (&["HDEL", &values, "alps"], false),
        (&["HDEL", &stamps, "alps"], false),
        (&["EVAL", many, "2", &stamps, &values], false),
        (&["DEL", &values], false),
        (&["SET", &stamps, "text"], false),
        (&["SET", &values, "text"], false),
    ] {
        let before = warnings();
        let _: redis::Value = server.ask(command).await;
        // The next exchange with the server follows at once.
        put(&replica, &path("tape"), report(0).to_string()).await;
        until("it is published again", async || {
            // Fails while the key has another type.
            let type_ = server.ask::<String>(&["TYPE", &stamps]).await;
            type_ == "hash"
                && server.stamp("alps").await.as_ref() == Some(&right)
                && server.ask::<String>(&["TYPE", &values]).await == "hash"
                && server.ask::<usize>(&["HSTRLEN", &values, "alps"]).await > 50
                && server.ask::<usize>(&["HLEN", &stamps]).await == 4
        })
        .await;
        assert_eq!(warnings() - before, usize::from(logged), "{command:?}: {}", replica.log());
    }
    let newcomer = server.replica(&simulator, &[]).await;
    learns(&newcomer, "alps").await;
    learns(&newcomer, "tape").await;
    assert!(replica.most_memory() >> 20 < 100);
    assert!(!newcomer.log().contains(FORGED), "{}", newcomer.log());

    // From the future: it could only come from a replica with a wrong clock.
    let _: i64 = server.ask(&["HSET", &stamps, "alps", "9999999999999999.1"]).await;
    until("it is replaced", async || server.stamp("alps").await.as_ref() == Some(&right)).await;
    let logs = replica.log() + &newcomer.log();
    assert!(logs.contains("is from the future, and ignored"), "{logs}");
    assert!(knows(&replica, "alps").await);
}

//! Recorded exchanges: loading, sending and comparing.

use reqwest::{Client, Method};
use serde_json::Value;
use simulator::Simulator;

pub(crate) struct Exchange {
    pub(crate) value: Value,
}

pub(crate) struct Request {
    method: Method,
    url: String,
    headers: Vec<(String, Vec<u8>)>,
    body: Option<String>,
}

pub(crate) struct Answer {
    status: u16,
    headers: reqwest::header::HeaderMap,
    text: String,
}

pub(crate) fn client() -> Client {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none()).build().unwrap()
}

pub(crate) fn lines(file: &str) -> Vec<Value> {
    let path = format!("{}/tests/recorded/{file}.jsonl", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

pub(crate) fn load(file: &str) -> Vec<Exchange> {
    lines(file).into_iter().map(|value| Exchange { value }).collect()
}

impl Exchange {
    pub(crate) fn name(&self) -> &str {
        self.value["name"].as_str().unwrap()
    }

    pub(crate) fn path(&self) -> &str {
        self.value["request"]["path"].as_str().unwrap()
    }

    /// The recorded request with this simulator's address and tokens.
    pub(crate) fn request(&self, sim: &Simulator) -> Request {
        let recorded = &self.value["request"];
        let mut headers = Vec::new();
        if let Some(text) = recorded["authorization"].as_str() {
            let text = match recorded["as"].as_str() {
                Some(user) => format!("Token {}", sim.world(|world| world.token(user)).unwrap()),
                None => text.to_owned(),
            };
            // Headers are Latin-1 on the wire.
            let bytes = text.chars().map(|letter| u8::try_from(u32::from(letter)).unwrap()).collect();
            headers.push(("Authorization".to_owned(), bytes));
        }
        for (name, value) in recorded["extra_headers"].as_object().into_iter().flatten() {
            headers.push((name.clone(), value.as_str().unwrap().into()));
        }
        let body = match &recorded["body"] {
            Value::Null => None,
            Value::Object(raw) if raw.contains_key("_raw") => Some(raw["_raw"].as_str().unwrap().to_owned()),
            body => Some(body.to_string()),
        };
        let mut url = url::Url::parse(&format!("{}{}", sim.base_url(), self.path())).unwrap();
        for pair in recorded["query"].as_array().into_iter().flatten() {
            let value = pair[1].as_str().map_or_else(|| pair[1].to_string(), str::to_owned);
            url.query_pairs_mut().append_pair(pair[0].as_str().unwrap(), &value);
        }
        let method = recorded["method"].as_str().unwrap().parse().unwrap();
        Request { method, url: url.to_string(), headers, body }
    }
}

pub(crate) async fn send(sim: &Simulator, request: &Request) -> Answer {
    let _ = sim;
    let mut builder = client().request(request.method.clone(), &request.url);
    for (name, value) in &request.headers {
        builder = builder.header(name, value.as_slice());
    }
    if let Some(body) = &request.body {
        builder = builder.header("Content-Type", "application/json").body(body.clone());
    }
    let response = builder.send().await.unwrap();
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    Answer { status, headers, text: response.text().await.unwrap() }
}

pub(crate) fn assert_answer(sim: &Simulator, file: &str, exchange: &Exchange, answer: &Answer) {
    let what = format!("{file} {}", exchange.name());
    let recorded = &exchange.value["response"];
    assert_eq!(answer.status, recorded["status"], "{what}: {}", answer.text);
    // The world has only the first twenty resources, and only the orders of these: three lists were recorded later, when
    // there were 210 resources.
    let later = |header: &Value| header[0] == "X-Result-Count" && header[1] == "210";
    let complete = file == "resources" && !recorded["headers"].as_array().unwrap().iter().any(later);
    for header in recorded["headers"].as_array().unwrap() {
        let (name, value) = (header[0].as_str().unwrap(), header[1].as_str().unwrap());
        if !complete && matches!(name, "Link" | "X-Result-Count") {
            continue;
        }
        let expected = value.replace("http://waldur.example.org", &sim.base_url());
        let found = answer.headers.get(name).map(|value| value.to_str().unwrap().to_owned());
        assert_eq!(found.as_deref(), Some(expected.as_str()), "{what}: {name}");
    }
    match &recorded["body"] {
        Value::Null => assert_eq!(answer.text, "", "{what}"),
        Value::Object(raw) if raw.contains_key("_raw") => assert_eq!(answer.text, raw["_raw"], "{what}"),
        body => {
            let own: Value = serde_json::from_str(&answer.text).unwrap_or_else(|error| panic!("{what}: {error}"));
            if answer.status >= 400 {
                assert_eq!(&own, body, "{what}");
            } else if what == "offerings detail" {
                for field in ["uuid", "slug", "name", "type", "state", "shared"] {
                    assert_eq!(own[field], body[field], "{what}: {field}");
                }
            } else {
                assert_same_shape(&what, body, &own);
                if complete {
                    assert_eq!(column(&own, "uuid"), column(body, "uuid"), "{what}: rows");
                }
            }
        }
    }
}

fn column<'a>(rows: &'a Value, key: &str) -> Vec<&'a Value> {
    rows.as_array().into_iter().flatten().filter_map(|row| row.get(key)).collect()
}

/// Asserts the same keys and types; null matches anything, and fields in `DATA` are not compared.
pub(crate) fn assert_same_shape(place: &str, recorded: &Value, own: &Value) {
    const DATA: [&str; 6] =
        ["attributes", "limits", "options", "backend_metadata", "current_usages", "offering_plugin_options"];
    match (recorded, own) {
        (Value::Null, _)
        | (_, Value::Null)
        | (Value::Bool(_), Value::Bool(_))
        | (Value::Number(_), Value::Number(_)) => {}
        (Value::String(a), Value::String(b)) => {
            assert_eq!(is_stamp(a), is_stamp(b), "{place}: {a} and {b}");
        }
        (Value::Array(a), Value::Array(b)) => {
            assert_eq!(a.is_empty(), b.is_empty(), "{place}: rows");
            for (a, b) in a.iter().zip(b) {
                assert_same_shape(place, a, b);
            }
        }
        (Value::Object(a), Value::Object(b)) => {
            let keys = |map: &serde_json::Map<String, Value>| {
                let mut keys: Vec<String> = map.keys().cloned().collect();
                keys.sort();
                keys
            };
            assert_eq!(keys(a), keys(b), "{place}: keys");
            for (key, value) in a {
                if !DATA.contains(&key.as_str()) {
                    assert_same_shape(&format!("{place}.{key}"), value, &b[key]);
                }
            }
        }
        _ => panic!("{place}: recorded {recorded}, answered {own}"),
    }
}

/// `2026-11-23T02:45:19.820550Z`
fn is_stamp(text: &str) -> bool {
    text.len() == 27 && text.ends_with('Z') && text.as_bytes()[10] == b'T'
}

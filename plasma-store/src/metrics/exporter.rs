//! Tells what the store counts, over HTTP, to Prometheus and whoever reads its format.
//!
//! It has a thread of its own, so that whatever its clients do costs the store nothing. They cost
//! little there: a few connections at a time, of which the oldest is given up for one more; none
//! for longer than [`LIFETIME`]; and one request on each, without a body.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::fmt;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderName, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use plasma_core::protocol::frame::MessageType;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, NoLabelSet, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;
use tokio::net::{TcpListener as AsyncListener, TcpStream};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::oneshot;
use tracing::{info, warn};

use super::{CutOff, Number, Refused, Stats, TIME_BOUNDS_US};
use crate::StoreError;

/// Where the metrics are.
const PATH: &str = "/metrics";

/// The format that `prometheus_client` writes.
const FORMAT: HeaderValue =
    HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");

/// Connections at a time.
const MAX_CONNECTIONS: usize = 32;

/// How long a connection may last, reading the answer included, and how long its request may take.
const LIFETIME: Duration = Duration::from_secs(10);
const REQUEST_TIME: Duration = Duration::from_secs(5);

/// Longest head of a request, in bytes; the least that `hyper` takes.
const MAX_HEAD: usize = 8 << 10;

/// How long to leave new connections waiting where descriptors have run out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What is told of requests, and under which name.
const REQUESTS: [(MessageType, &str); 17] = [
    (MessageType::ConnectRequest, "connect"),
    (MessageType::CreateRequest, "create"),
    (MessageType::CreateAndSealRequest, "create_and_seal"),
    (
        MessageType::CreateAndSealBatchRequest,
        "create_and_seal_batch",
    ),
    (MessageType::AbortRequest, "abort"),
    (MessageType::SealRequest, "seal"),
    (MessageType::GetRequest, "get"),
    (MessageType::ReleaseRequest, "release"),
    (MessageType::DeleteRequest, "delete"),
    (MessageType::ContainsRequest, "contains"),
    (MessageType::ListRequest, "list"),
    (MessageType::EvictRequest, "evict"),
    (MessageType::RefreshLruRequest, "refresh_lru"),
    (MessageType::SubscribeRequest, "subscribe"),
    (MessageType::SetOptionsRequest, "set_options"),
    (MessageType::GetDebugStringRequest, "get_debug_string"),
    (MessageType::DisconnectClient, "disconnect"),
];

/// A thread that serves metrics. Dropped, it stops at once.
#[derive(Debug)]
pub(crate) struct Exporter {
    address: SocketAddr,
    stop: Option<oneshot::Sender<Infallible>>,
    thread: Option<JoinHandle<()>>,
}

impl Exporter {
    /// Serves `stats` at `address`; port 0 is any that is free.
    pub(crate) fn start(address: SocketAddr, stats: Arc<Stats>) -> Result<Self, StoreError> {
        let cannot = |source| StoreError::Metrics { address, source };
        let listener = TcpListener::bind(address).map_err(cannot)?;
        listener.set_nonblocking(true).map_err(cannot)?;
        let address = listener.local_addr().map_err(cannot)?;
        let runtime = Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(cannot)?;
        let listener = {
            let _inside = runtime.enter();
            AsyncListener::from_std(listener).map_err(cannot)?
        };
        let mut registry = Registry::default();
        registry.register_collector(Box::new(Told(Arc::clone(&stats))));
        let (stop, stopped) = oneshot::channel();
        let builder = thread::Builder::new().name("plasma-metrics".into());
        let told = Exported { registry, stats };
        let thread = builder.spawn(move || serve(&runtime, listener, told, stopped));
        info!(%address, "serving metrics");
        Ok(Self {
            address,
            stop: Some(stop),
            thread: Some(thread.map_err(cannot)?),
        })
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Exporter {
    fn drop(&mut self) {
        // Its end is what the thread waits for.
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // There is nothing to be done for one that panicked.
            let _ = thread.join();
        }
    }
}

/// What is told, and whom to ask for it.
#[derive(Debug)]
struct Exported {
    registry: Registry,
    stats: Arc<Stats>,
}

/// Serves until the other end of `stopped` is dropped. What is still being sent then ends with the
/// runtime.
fn serve(
    runtime: &Runtime,
    listener: AsyncListener,
    told: Exported,
    stopped: oneshot::Receiver<Infallible>,
) {
    runtime.block_on(async {
        tokio::select! {
            _ = stopped => {}
            never = accept(listener, Arc::new(told)) => match never {},
        }
    });
}

async fn accept(listener: AsyncListener, told: Arc<Exported>) -> Infallible {
    let mut connections = VecDeque::new();
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                warn!(%error, "cannot accept a connection for metrics now");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        connections.retain(|connection: &tokio::task::AbortHandle| !connection.is_finished());
        if connections.len() >= MAX_CONNECTIONS
            && let Some(oldest) = connections.pop_front()
        {
            oldest.abort();
        }
        let connection = tokio::spawn(tokio::time::timeout(
            LIFETIME,
            answer(stream, Arc::clone(&told)),
        ));
        connections.push_back(connection.abort_handle());
    }
}

/// Answers one request.
async fn answer(stream: TcpStream, told: Arc<Exported>) {
    let told = &*told;
    let service = service_fn(|request| async move {
        if let Some(renewal) = &told.stats.renewal {
            renewal.ask().await;
        }
        Ok::<_, Infallible>(respond(&request, &told.registry))
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(REQUEST_TIME)
        .max_buf_size(MAX_HEAD)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service);
    // Whoever sends no request, or reads no answer, has itself to blame.
    let _ = connection.await;
}

fn respond(request: &Request<Incoming>, registry: &Registry) -> Response<Full<Bytes>> {
    if request.uri().path() != PATH {
        let text = format!("metrics are at {PATH}\n");
        return response(StatusCode::NOT_FOUND, None, text);
    }
    if ![Method::GET, Method::HEAD].contains(request.method()) {
        let allow = (ALLOW, HeaderValue::from_static("GET, HEAD"));
        let text = "metrics are there to be read: GET\n".to_owned();
        return response(StatusCode::METHOD_NOT_ALLOWED, Some(allow), text);
    }
    let mut text = String::new();
    match text::encode(&mut text, registry) {
        Ok(()) => response(StatusCode::OK, Some((CONTENT_TYPE, FORMAT)), text),
        Err(error) => response(
            StatusCode::INTERNAL_SERVER_ERROR,
            None,
            format!("{error}\n"),
        ),
    }
}

fn response(
    status: StatusCode,
    header: Option<(HeaderName, HeaderValue)>,
    text: String,
) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    response.headers_mut().extend(header);
    response
}

/// What the store counts, in the words of Prometheus.
#[derive(Debug)]
struct Told(Arc<Stats>);

impl Collector for Told {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let stats = &*self.0;
        let capacity = stats.capacity_bytes.get();
        let used = stats.used_bytes.get();
        for (name, help, value) in [
            (
                "plasma_capacity_bytes",
                "Data and metadata that the store holds at most.",
                capacity,
            ),
            (
                "plasma_used_bytes",
                "Data and metadata of all objects in memory, sealed or not.",
                used,
            ),
            (
                "plasma_free_bytes",
                "What is left of the capacity.",
                capacity.saturating_sub(used),
            ),
            (
                "plasma_largest_free_block_bytes",
                "Size of the largest object that there is room for without evicting any.",
                stats.largest_free_bytes.get(),
            ),
            (
                "plasma_pinned_bytes",
                "Data and metadata of objects that some client holds, so that they stay.",
                stats.pinned_bytes.get(),
            ),
            (
                "plasma_objects",
                "Objects, sealed or not, those in the external store included.",
                stats.objects.get(),
            ),
            (
                "plasma_unsealed_objects",
                "Objects that are being created.",
                stats.unsealed_objects.get(),
            ),
            (
                "plasma_clients",
                "Connections that are being served.",
                stats.clients.get(),
            ),
            (
                "plasma_cut_off_clients",
                "Connections that are served no more and keep what they hold until they end.",
                stats.cut_off_clients.get(),
            ),
            (
                "plasma_subscriptions",
                "Clients that hear of what is sealed and deleted.",
                stats.subscriptions.get(),
            ),
        ] {
            let gauge = ConstGauge::new(value);
            let metric = encoder.encode_descriptor(name, help, None, gauge.metric_type())?;
            gauge.encode(metric)?;
        }
        for (name, help, value) in [
            (
                "plasma_hits",
                "Ids in gets whose objects were there when they were asked for.",
                stats.hits.get(),
            ),
            (
                "plasma_misses",
                "Ids in gets whose objects were not there when they were asked for.",
                stats.misses.get(),
            ),
            (
                "plasma_evictions",
                "Objects that were evicted.",
                stats.evictions.get(),
            ),
            (
                "plasma_evicted_bytes",
                "Data and metadata of objects that were evicted.",
                stats.evicted_bytes.get(),
            ),
            (
                "plasma_accepted_clients",
                "Connections that were accepted.",
                stats.accepted.get(),
            ),
            (
                "plasma_refused_subscriptions",
                "Subscriptions that were refused because of max-subscriptions.",
                stats.refused_subscriptions.get(),
            ),
            (
                "plasma_dropped_subscriptions",
                "Subscriptions that were ended because their clients did not read.",
                stats.dropped_subscriptions.get(),
            ),
            (
                "plasma_refused_creates",
                "Creates that failed because of max-objects.",
                stats.refused_creates.get(),
            ),
            (
                "plasma_ignored_requests",
                "Releases and aborts of objects that the client did not hold.",
                stats.ignored_requests.get(),
            ),
        ] {
            let counter = ConstCounter::new(value);
            let metric = encoder.encode_descriptor(name, help, None, counter.metric_type())?;
            counter.encode(metric)?;
        }
        encode_by_reason(
            &mut encoder,
            "plasma_refused_clients",
            "Connections that were refused.",
            Refused::LABELS,
            &stats.refused,
        )?;
        encode_by_reason(
            &mut encoder,
            "plasma_closed_clients",
            "Connections that the store ended.",
            CutOff::LABELS,
            &stats.cut_off,
        )?;
        encode_requests(&mut encoder, stats)
    }
}

fn encode_by_reason(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    reasons: &[&str],
    counts: &[Number],
) -> fmt::Result {
    let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
    for (reason, count) in reasons.iter().zip(counts) {
        let labels = [("reason", *reason)];
        let metric = metric.encode_family(&labels)?;
        ConstCounter::new(count.get()).encode(metric)?;
    }
    Ok(())
}

fn encode_requests(encoder: &mut DescriptorEncoder<'_>, stats: &Stats) -> fmt::Result {
    let mut metric = encoder.encode_descriptor(
        "plasma_request_seconds",
        "Time that the store was busy with a request, by type; time that a get or a create waits is \
         not part of it.",
        None,
        MetricType::Histogram,
    )?;
    for (kind, label) in REQUESTS {
        let Some(times) = stats.requests.get(kind as usize) else {
            continue;
        };
        let bounds = TIME_BOUNDS_US.iter().map(|us| *us as f64 / 1e6);
        let bounds = bounds.chain([f64::INFINITY]);
        let counts = times.classes.iter().map(Number::get);
        let classes: Vec<_> = bounds.zip(counts).collect();
        // Of these very classes, so that they and their sum agree.
        let count = classes.iter().map(|(_, count)| count).sum();
        let total_s = times.total_ns.get() as f64 / 1e9;
        let labels = [("type", label)];
        let mut metric = metric.encode_family(&labels)?;
        metric.encode_histogram::<NoLabelSet>(total_s, count, &classes, None)?;
    }
    Ok(())
}

//! `/healthz`, `/readyz` and `/metrics`.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::metrics::Metrics;

/// Connections at once; more wait.
const MAX_CONNECTIONS: usize = 32;
/// How long a client may take for the head of a request.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a connection may live.
const CONNECTION_TIMEOUT: Duration = Duration::from_mins(1);

/// What the server answers from.
#[derive(Debug)]
pub struct State {
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// Whether the agent renews its lease and may be relied on.
    pub ready: AtomicBool,
}

/// Serves until `stop`.
pub async fn serve(address: SocketAddr, state: Arc<State>, stop: CancellationToken) -> std::io::Result<()> {
    let listener = TcpListener::bind(address).await?;
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let Ok(place) = places.clone().acquire_owned().await else { return Ok(()) };
        let stream = tokio::select! {
            () = stop.cancelled() => return Ok(()),
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    // Out of file descriptors, or the client went away: neither ends the server.
                    tracing::warn!(%error, "failed to accept a connection");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            },
        };
        let state = state.clone();
        tokio::spawn(async move {
            let service = service_fn(move |request| {
                let response = answer(&state, &request);
                async move { Ok::<_, Infallible>(response) }
            });
            let mut builder = hyper::server::conn::http1::Builder::new();
            builder.timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT);
            let connection = builder.serve_connection(TokioIo::new(stream), service);
            // A client that breaks off is its own affair.
            drop(tokio::time::timeout(CONNECTION_TIMEOUT, connection).await);
            drop(place);
        });
    }
}

fn answer(state: &State, request: &Request<Incoming>) -> Response<Full<Bytes>> {
    respond(state, request.method(), request.uri().path())
}

fn respond(state: &State, method: &Method, path: &str) -> Response<Full<Bytes>> {
    if method != Method::GET && method != Method::HEAD {
        return text(StatusCode::METHOD_NOT_ALLOWED, "only GET\n".to_owned());
    }
    match path {
        "/healthz" => text(StatusCode::OK, "ok\n".to_owned()),
        "/readyz" if state.ready.load(Ordering::Relaxed) => text(StatusCode::OK, "ok\n".to_owned()),
        "/readyz" => text(StatusCode::SERVICE_UNAVAILABLE, "the lease is not renewed yet\n".to_owned()),
        "/metrics" => match state.metrics.encode() {
            Ok(body) => text(StatusCode::OK, body),
            Err(_) => text(StatusCode::INTERNAL_SERVER_ERROR, "failed to encode metrics\n".to_owned()),
        },
        _ => text(StatusCode::NOT_FOUND, "try /healthz, /readyz or /metrics\n".to_owned()),
    }
}

fn text(status: StatusCode, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    let kind = header::HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_is_ready_once_its_lease_is_renewed() {
        let state = State { metrics: Arc::new(Metrics::new()), ready: AtomicBool::new(false) };
        assert_eq!(respond(&state, &Method::GET, "/healthz").status(), StatusCode::OK);
        assert_eq!(respond(&state, &Method::GET, "/readyz").status(), StatusCode::SERVICE_UNAVAILABLE);
        state.ready.store(true, Ordering::Relaxed);
        assert_eq!(respond(&state, &Method::GET, "/readyz").status(), StatusCode::OK);
        assert_eq!(respond(&state, &Method::GET, "/metrics").status(), StatusCode::OK);
        assert_eq!(respond(&state, &Method::GET, "/secret").status(), StatusCode::NOT_FOUND);
        assert_eq!(respond(&state, &Method::POST, "/metrics").status(), StatusCode::METHOD_NOT_ALLOWED);
    }
}

//! The JSON interface: what the ledger holds, and how to empty it.

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};

use crate::SharedBook;
use crate::book::Book;

/// `GET /runs`, `GET /runs/<run>`, `POST /reset`, `POST /gaps/reset`, `GET /healthz`.
pub(crate) fn routes(book: SharedBook) -> Router {
    Router::new()
        .route("/runs", get(runs))
        .route("/runs/{run}", get(run))
        .route("/reset", post(reset))
        .route("/gaps/reset", post(forget_gaps))
        .route("/healthz", get(|| async { "ok" }))
        .with_state(book)
}

async fn runs(State(book): State<SharedBook>) -> Response {
    Json(book.write(|book, _| book.summaries())).into_response()
}

async fn run(State(book): State<SharedBook>, Path(name): Path<String>) -> Response {
    match book.write(|book, _| book.detail(&name)) {
        Some(detail) => Json(detail).into_response(),
        None => (StatusCode::NOT_FOUND, "no such run").into_response(),
    }
}

async fn forget_gaps(State(book): State<SharedBook>) -> StatusCode {
    book.write(|book, _| book.forget_gaps());
    StatusCode::NO_CONTENT
}

async fn reset(State(book): State<SharedBook>) -> StatusCode {
    book.write(|book, _| *book = Book::default());
    StatusCode::NO_CONTENT
}

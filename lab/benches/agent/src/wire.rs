//! Finds the ids of spans in an encoded trace request. An own walk over the wire format, so that the
//! agent is not checked by its own code. Must not know who sends or receives.

/// Where one span's ids begin in the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ids {
    /// 16 bytes.
    pub trace: usize,
    /// 8 bytes.
    pub span: usize,
}

/// Calls `found` for every span; none where the bytes are no trace request, or a span has no ids.
pub fn each_span(request: &[u8], mut found: impl FnMut(Ids)) -> Option<()> {
    fields(request, 0, request.len(), |number, from, to| {
        if number != 1 {
            return Some(());
        }
        fields(request, from, to, |number, from, to| {
            if number != 2 {
                return Some(());
            }
            fields(request, from, to, |number, from, to| {
                if number == 2 {
                    found(ids(request, from, to)?);
                }
                Some(())
            })
        })
    })
}

fn ids(request: &[u8], from: usize, to: usize) -> Option<Ids> {
    let (mut trace, mut span) = (None, None);
    fields(request, from, to, |number, from, to| {
        match (number, to - from) {
            (1, 16) => trace = Some(from),
            (2, 8) => span = Some(from),
            _ => {}
        }
        Some(())
    })?;
    Some(Ids {
        trace: trace?,
        span: span?,
    })
}

/// Calls `each` with number, beginning and end of every length-delimited field between two offsets.
fn fields(
    bytes: &[u8],
    from: usize,
    to: usize,
    mut each: impl FnMut(u64, usize, usize) -> Option<()>,
) -> Option<()> {
    let mut at = from;
    while at < to {
        let tag = varint(bytes, &mut at)?;
        match tag & 7 {
            0 => {
                varint(bytes, &mut at)?;
            }
            1 => at += 8,
            2 => {
                let length = usize::try_from(varint(bytes, &mut at)?).ok()?;
                let end = at.checked_add(length)?;
                if end > to {
                    return None;
                }
                each(tag >> 3, at, end)?;
                at = end;
            }
            5 => at += 4,
            _ => return None,
        }
    }
    (at == to).then_some(())
}

fn varint(bytes: &[u8], at: &mut usize) -> Option<u64> {
    let mut value = 0;
    for index in 0..10 {
        let byte = *bytes.get(*at)?;
        *at += 1;
        value |= u64::from(byte & 0x7f) << (7 * index);
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

import { TrackingError } from './tracking-error.ts'

/** What came back for a request. */
export type Answer = {
  /** 0, where nothing did. */
  readonly status: number
  /** The body, where it is JSON. */
  readonly body?: any
  /** How long the server asks to be left alone, in milliseconds; 0, where it does not ask. */
  readonly retryAfter?: number
  /** Why nothing came back. */
  readonly cause?: unknown
}

/** Sends a request and reads the answer; never rejects. `clock` is what a date in Retry-After is measured by. */
export async function request(clock: () => number, send: () => Promise<Response>): Promise<Answer> {
  try {
    const response = await send()
    return readAnswer(response.status, await response.text(), wait(response.headers.get('retry-after'), clock))
  } catch (cause) {
    return { status: 0, cause }
  }
}

/** Reads an answer that came by another way than `fetch`. */
export function readAnswer(status: number, text: string, retryAfter = 0): Answer {
  let body
  try {
    body = JSON.parse(text)
  } catch {
    // Then it has none that says anything.
  }
  return { status, body, retryAfter }
}

// An hour at most: a longer wait would be a mistake of somebody's, and a timer holds no more than 24 days.
function wait(header: string | null, clock: () => number): number {
  const seconds = Number(header)
  const ms = seconds >= 0 ? seconds * 1000 : Date.parse(header!) - clock()
  return Math.min(Math.max(ms || 0, 0), 3_600_000)
}

/** A refusal, 4xx but 408 and 429: the same again would be refused again. Anything else that is no success may pass. */
export const isRefusal = ({ status }: Answer): boolean => /^4(?!08|29)/.test(`${status}`)

/** What became of one event of a batch. */
export type Result = { result: 'ok' | 'duplicate' | 'drop', event_id?: string, warnings?: string[], error?: unknown }

/** Says whether an answer tells of each of so many events what became of it. */
export const isComplete = ({ status, body }: Answer, events: number): boolean =>
  status < 300 && body?.results?.length === events && body.results.every?.((one: Result | null) => one?.result)

/** The error that an answer stands for: the database's own where it speaks, else what its status says. */
export function errorOf({ status, body, cause }: Answer): TrackingError {
  const { code, message, details, hint } = body ?? {}
  if (isDatabases(body)) return new TrackingError(message, { status: Number(code.slice(2)), details, hint })
  return new TrackingError(
    status ? names[status] ?? code ?? 'unexpected_answer' : 'network_error',
    { status: status || undefined, details: message ?? (cause as Error | undefined)?.message, hint, cause })
}

/** Says whether a body is one of the database's own errors, whose message is a stable name. */
export const isDatabases = (body: any): boolean => /^PT\d/.test(body?.code)

const names: Record<number, string> = { 401: 'unauthenticated', 413: 'payload_too_large', 429: 'rate_limited' }

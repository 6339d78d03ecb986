/** What the database, or the way to it, said about an event that was not recorded. */
export class TrackingError extends Error {
  declare readonly name: 'TrackingError'
  /**
   * The stable name to branch on: one of the database's (`no_permission`, `invalid_tags`, …; the README lists
   * them), one of PostgREST's (`PGRST202`), or one of the tracker's own: `network_error`, `unexpected_answer`,
   * `queue_full`, `no_group`, `timeout`, `opted_out`, `before_send`, `closed`, `storage_failed`, `expired`.
   */
  declare readonly code: string
  /** The HTTP status, where there was an answer. */
  declare readonly status?: number
  /** What was wrong with this request. */
  declare readonly details?: string
  /** The way out. */
  declare readonly hint?: string

  constructor(code: string, { status, details, hint, cause }: About = {}) {
    super(details ? `${code}: ${details}` : code, { cause })
    Object.assign(this, { name: 'TrackingError', code, status, details: details ?? undefined, hint: hint ?? undefined })
  }
}

/** Whether a message of the database is one of its stable names. */
export const isStableName = (message: unknown): message is string =>
  typeof message === 'string' && /^[a-z]+(_[a-z]+)+$/.test(message)

type About = { status?: number, details?: string | null, hint?: string | null, cause?: unknown }

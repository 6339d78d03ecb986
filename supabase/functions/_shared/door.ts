// The HTTP door for clients of the origin system, which post their events to /private/events. It speaks their
// contract and decides nothing: every request goes to the Data API with the caller's own credentials, and what the
// database says comes back in the words that those clients know.
//
//   POST /private/events   one event, of version 1 or 2: track_event
//   GET  /private/config   the addresses of the rest of that system; there is no rest here, so {}
//   GET  /app/:app_id      an app and the organization that owns it
//
// It runs wherever Request and Response do: in Supabase's edge runtime, in Deno, and in Node for the local stack.
import { Hono, type Context } from 'hono'
import { bodyLimit } from 'hono/body-limit'
import { cors } from 'hono/cors'
import type { ContentfulStatusCode as Status } from 'hono/utils/http-status'
import { askDataApi, type Answer } from './data-api.ts'
import type { Project } from './project.ts'

/** Bytes that an event may take. The database allows much less of what it stores; this keeps the rest away from it. */
const maxBodySize = 1024 * 1024

/** Seconds after which a caller may try again when the database could not be asked. */
const retryAfter = 5

/** Makes the door to a project: `fetch` answers a request whose path begins with the function's name. */
export function createDoor(project: Project): Hono {
  const door = new Hono()
  door.use(cors({ allowMethods: ['GET', 'HEAD', 'POST'], exposeHeaders: ['Retry-After'], maxAge: 3600 }))

  const limit = bodyLimit({ maxSize: maxBodySize, onError: (c) => refuse(c, 413, 'payload_too_large', 'The event takes more than 1 MB.') })
  door.post('/private/events', limit, async (c) => {
    const payload = jsonIn(await c.req.arrayBuffer())
    if (payload === undefined) return refuse(c, 400, 'invalid_json_parse_body', 'Invalid JSON body')
    const answer = await askDataApi(project, c.req.raw.headers, 'rpc/track_event', `{"v2":${payload}}`)
    return isRecorded(answer) ? c.json({ status: 'ok' }) : pass(c, answer)
  })
  door.all('/private/events', (c) => refuseMethod(c, 'POST'))

  door.get('/private/config', (c) => c.json({}))
  door.all('/private/config', (c) => refuseMethod(c, 'GET, HEAD'))

  door.get('/app/:app_id', async (c) => {
    const query = new URLSearchParams({ select: 'app_id,name,owner_org', app_id: `eq.${c.req.param('app_id')}` })
    const answer = await askDataApi(project, c.req.raw.headers, `apps?${query}`)
    if (answer.status !== 200 || !Array.isArray(answer.body)) return pass(c, answer)
    const [app] = answer.body
    return app ? c.json(app) : refuse(c, 401, 'cannot_access_app', 'You can\'t access this app')
  })
  door.all('/app/:app_id', (c) => refuseMethod(c, 'GET, HEAD'))

  door.notFound((c) => refuse(c, 404, 'not_found', 'Not found'))
  door.onError((error, c) => {
    console.error(`The door failed at ${c.req.method} ${c.req.path}:`, error)
    return refuse(c, 500, 'unknown_error', 'Unknown error')
  })
  return door
}

/** The text of a body that is JSON. It goes on as it was sent, so that no digit of a number is lost. */
function jsonIn(body: ArrayBuffer): string | undefined {
  try {
    const text = new TextDecoder('utf-8', { fatal: true }).decode(body)
    JSON.parse(text)
    return text
  } catch {
    return undefined
  }
}

// A 200 may come from something else that answers at the project's address, and then nothing was written.
function isRecorded({ status, body }: Answer): boolean {
  return status === 200 && (body as { status?: unknown } | null)?.status === 'ok'
}

/** Old clients read `error`, `message` and `moreInfo`; the hint is for whoever reads their logs. */
function refuse(c: Context, status: Status, error: string, message: string, hint?: string): Response {
  return c.json({ error, message, hint, moreInfo: {} }, status)
}

function refuseMethod(c: Context, allowed: string): Response {
  c.header('Allow', `${allowed}, OPTIONS`)
  return refuse(c, 405, 'method_not_allowed', `Only ${allowed} is answered here`)
}

/** What the origin system calls errors that the database has another name for. */
const oldNames: Record<string, string> = {
  unauthenticated: 'no_jwt_apikey_or_subkey',
  invalid_api_key: 'invalid_apikey',
  rate_limited: 'too_many_requests',
}

/** What an error is called that comes from before the database, or from Postgres itself. */
const namesByStatus: Record<number, string> = {
  400: 'invalid_payload', 401: 'invalid_apikey', 403: 'no_permission', 413: 'payload_too_large', 429: 'too_many_requests' }

/** Passes a refusal on. What is not the caller's doing is 503: nothing was wrong with the event, and it may come again. */
function pass(c: Context, answer: Answer): Response {
  const status = statusOf(answer)
  if (answer.retryAfter) c.header('Retry-After', answer.retryAfter)
  if (status === 503) {
    console.error(`The Data API could not be asked at ${c.req.method} ${c.req.path}:`, answer.status, answer.body)
    if (!answer.retryAfter) c.header('Retry-After', String(retryAfter))
    return refuse(c, 503, 'service_unavailable', 'The database cannot be reached; try again later')
  }
  const { code = '', message = '', details, hint } = errorIn(answer)
  if (isOurs(code)) return refuse(c, status, oldNames[message] ?? message, details ?? message, hint)
  const isAboutJwt = code.startsWith('PGRST3')
  return refuse(c, status, isAboutJwt ? 'invalid_jwt' : namesByStatus[status] ?? 'unknown_error', message, hint)
}

function statusOf(answer: Answer): Status {
  const { code = '' } = errorIn(answer)
  // Postgres's stack is less deep than the event; PostgREST calls that a fault of the server.
  if (code === '54001') return 400
  return isOurs(code) || answer.status in namesByStatus ? answer.status as Status : 503
}

/** Says whether an error is one of the database's own, which has a stable name for a message. */
function isOurs(code: string): boolean {
  return /^PT4\d\d$/.test(code)
}

type DataApiError = { code?: string, message?: string, details?: string, hint?: string }

function errorIn({ body }: Answer): DataApiError {
  const fields = typeof body === 'object' && body ? Object.entries(body) : []
  return Object.fromEntries(fields.filter(([, value]) => typeof value === 'string'))
}

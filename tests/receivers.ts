import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import type { AddressInfo, Socket } from 'node:net'
import { gunzipSync } from 'node:zlib'
import { Webhook } from 'standardwebhooks'

/**
 * Vendors, as far as their documented contracts go: servers on loopback that check every request strictly and
 * answer what breaks the contract as the vendor would. Whatever they take is kept, in the order taken.
 */

/** A request as it came. */
export type Received = {
  method: string
  path: string
  query: URLSearchParams
  headers: IncomingMessage['headers']
  text: string
  body: unknown
}

/** What goes wrong with a request. */
export type Fault =
  /** An answer instead of the right one; nothing is taken. */
  | { status: number, headers?: Record<string, string>, text?: string }
  /** The connection is cut: before anything is taken; or after all of it is, ahead of the answer, or amid it. */
  | { cut: 'before' | 'after' | 'amid' }
  /** All of it is taken, and the answer never ends: as fast as it is read, or a little at a time. */
  | { endless: 'flood' | 'trickle' }
  /** The right answer, late; nothing is taken where nobody waits for it any more. */
  | { delayMs: number }

export type ReceiverOptions<Item> = {
  /** Decides the fate of a request; `n` counts requests from 0. Called before the contract is looked at. */
  fault?: (request: Received, n: number) => Fault | undefined
  /** Items that the vendor refuses though they keep the contract: poison. */
  poison?: (item: Item) => boolean
  /** Bytes of a request's body, at most; more is answered 413. */
  maxBytes?: number
  /** Keeps no requests, only what was taken: for long runs. */
  forgetRequests?: boolean
}

export type Receiver<Item> = {
  /** Such as http://127.0.0.1:40123. */
  readonly url: string
  /** What was taken, in order, repetitions too. */
  readonly taken: Item[]
  /** Whom it was told to forget, by the vendor's word for them, repetitions too. */
  readonly forgotten: string[]
  /** Every request, also those that failed. */
  readonly requests: Received[]
  /** Why requests were refused: breaches of the contract, not faults. */
  readonly breaches: string[]
  /** May be changed while it runs. */
  options: ReceiverOptions<Item>
  /** Forgets what it has. */
  clear(): void
  close(): Promise<void>
}

/** What a contract says of a request: take these, and forget those, or this answer. */
type Verdict<Item> = { taken: Item[], forgotten?: string[], answer: Answer } | Answer
type Answer = { status: number, text: string, headers?: Record<string, string> }

/** What a vendor holds its callers to. */
type Contract<Item> = {
  /** Bytes of a request's body, at most, and what more is answered. */
  maxBytes: number
  tooLarge: Answer
  judge(request: Received, poison: (item: Item) => boolean, known: Pick<Receiver<Item>, 'taken' | 'forgotten'>): Verdict<Item>
}

async function startReceiver<Item>(options: ReceiverOptions<Item>, contract: Contract<Item>): Promise<Receiver<Item>> {
  const sockets = new Set<Socket>()
  let count = 0
  const receiver = {
    url: '', taken: [] as Item[], forgotten: [] as string[], requests: [] as Received[], breaches: [] as string[], options,
    clear() {
      for (const list of [receiver.taken, receiver.forgotten, receiver.requests, receiver.breaches]) list.length = 0
      count = 0
    },
    async close() {
      for (const socket of sockets) socket.destroy()
      await new Promise((resolve) => server.close(resolve))
    },
  }
  const handle = async (message: IncomingMessage, response: ServerResponse) => {
    const request = await read(message)
    const fault = receiver.options.fault?.(request, count++)
    if (!receiver.options.forgetRequests) receiver.requests.push(request)
    if (fault && 'delayMs' in fault) {
      await new Promise((resolve) => setTimeout(resolve, fault.delayMs))
      if (message.socket.destroyed) return
    }
    if (fault && 'cut' in fault && fault.cut === 'before') return void message.socket.destroy()
    if (fault && 'status' in fault) return answer(response, { text: 'a fault', ...fault })
    const verdict = judge(request)
    if ('taken' in verdict) {
      receiver.taken.push(...verdict.taken)
      receiver.forgotten.push(...verdict.forgotten ?? [])
    } else {
      receiver.breaches.push(verdict.text)
    }
    if (fault && 'cut' in fault) return cut(response, fault.cut)
    if (fault && 'endless' in fault) return answerWithoutEnd(response, fault.endless)
    answer(response, 'taken' in verdict ? verdict.answer : verdict)
  }
  const judge = (request: Received): Verdict<Item> => {
    const { maxBytes = contract.maxBytes, poison = () => false } = receiver.options
    return request.text.length > maxBytes ? contract.tooLarge : contract.judge(request, poison, receiver)
  }
  const server = createServer((message, response) => {
    handle(message, response).catch(() => message.socket.destroy())
  })
  server.on('connection', (socket: Socket) => {
    sockets.add(socket)
    socket.on('close', () => sockets.delete(socket))
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  receiver.url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
  return receiver
}

function answer(response: ServerResponse, { status, headers, text }: Answer): void {
  const type = text.startsWith('{') ? 'application/json' : 'text/plain'
  response.writeHead(status, { 'content-type': type, ...headers }).end(text)
}

function cut(response: ServerResponse, where: 'before' | 'after' | 'amid'): void {
  if (where !== 'amid') return void response.socket?.destroy()
  response.writeHead(200, { 'content-length': '100' }).write('{"sta', () => response.socket?.destroy())
}

function answerWithoutEnd(response: ServerResponse, how: 'flood' | 'trickle'): void {
  const text = how === 'flood' ? 'x'.repeat(64 * 1024) : 'x'
  const timer = setInterval(() => response.write(text), how === 'flood' ? 1 : 100)
  response.writeHead(200).once('close', () => clearInterval(timer))
}

async function read(message: IncomingMessage): Promise<Received> {
  const chunks: Buffer[] = []
  for await (const chunk of message) chunks.push(chunk as Buffer)
  const bytes = Buffer.concat(chunks)
  const text = (message.headers['content-encoding'] === 'gzip' ? gunzipSync(bytes) : bytes).toString()
  const url = new URL(message.url ?? '/', 'http://127.0.0.1')
  const { method = '', headers } = message
  return { method, path: url.pathname, query: url.searchParams, headers, text, body: parse(text) }
}

function parse(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}

type Fields = Record<string, unknown>
const isObject = (value: unknown): value is Fields =>
  typeof value === 'object' && value !== null && !Array.isArray(value)
const isText = (value: unknown, maxLength = Infinity): value is string =>
  typeof value === 'string' && value.trim() !== '' && [...value].length <= maxLength
const isJson = ({ headers }: Received) => /^application\/json\b/.test(headers['content-type'] ?? '')
const isForm = ({ headers }: Received) => headers['content-type'] === 'application/x-www-form-urlencoded'
const isIsoTime = (value: unknown): value is string =>
  typeof value === 'string' && !Number.isNaN(Date.parse(value))
  && /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)$/.test(value)
const isUuid = (value: unknown): value is string =>
  typeof value === 'string' && /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i.test(value)
const unknownFields = (fields: Fields, known: string[]) => Object.keys(fields).filter((name) => !known.includes(name))
const all = (fields: Fields, is: (value: unknown) => boolean) => Object.values(fields).every((value) => is(value))


// PostHog: POST /batch/, and persons ----------------------------------------------------------------

/** An event that PostHog took, and whether its request was marked as a historical migration. */
export type CapturedEvent = {
  uuid: string
  event: string
  distinct_id: string
  timestamp: string
  properties: Fields
  historical: boolean
}

/** What PostHog's capture endpoints refuse as ids, in any case. */
const illegalIds = [
  '0', '00000000-0000-0000-0000-000000000000', '[object object]', 'anonymous', 'anonymous-user', 'backend',
  'distinct_id', 'distinctid', 'email', 'false', 'guest', 'id', 'nan', 'none', 'not_authenticated', 'null', 'system',
  'true', 'undefined', 'user',
]

/** A project at PostHog, and the personal key by which its persons are deleted. */
export type PostHogProject = { projectId: string, personalApiKey: string }

/**
 * PostHog's capture service, with the project's key, where a request is taken whole or not at all; and of its app the
 * endpoint that deletes persons.
 */
export function startPostHog(
  apiKey: string, options: ReceiverOptions<CapturedEvent> = {},
  project: PostHogProject = { projectId: '12345', personalApiKey: 'phx_personal' },
) {
  const judge: Contract<CapturedEvent>['judge'] = (request, poison, known) => {
    const refused = (text: string) => ({ status: 400, text })
    if (request.path.startsWith('/api/')) return judgeDeletion(request, project, known)
    if (request.path !== '/batch/') return { status: 404, text: 'not found' }
    if (request.method !== 'POST') return { status: 405, text: 'method not allowed' }
    if (!isJson(request)) return refused('failed to decode request: unsupported content type')
    if (!isObject(request.body)) return refused('failed to parse request: not a JSON object')
    const { api_key, batch, historical_migration, sent_at, ...others } = request.body
    if (api_key === undefined) return { status: 401, text: 'event submitted without an api_key' }
    if (api_key !== apiKey) return { status: 401, text: `API key is not valid: ${JSON.stringify(api_key)}` }
    if (Object.keys(others).length > 0) return refused(`failed to parse request: unknown fields ${Object.keys(others)}`)
    if (historical_migration !== undefined && typeof historical_migration !== 'boolean') {
      return refused('failed to parse request: historical_migration')
    }
    if (sent_at !== undefined && !isIsoTime(sent_at)) return refused('failed to parse request: sent_at')
    if (!Array.isArray(batch)) return refused('failed to parse request: missing field `batch`')
    if (batch.length === 0) return refused('request holds no event')
    for (const event of batch) {
      const breach = breachOfPostHog(event, historical_migration === true)
      if (breach) return breach === 'maximum event size exceeded' ? { status: 413, text: breach } : refused(breach)
    }
    const historical = historical_migration === true
    const captured = (batch as CapturedEvent[]).map((event) => ({ ...event, historical }))
    if (captured.some(poison)) return refused('invalid event could not be processed')
    return { taken: captured, answer: { status: 200, text: '{"status":"Ok"}' } }
  }
  const tooLarge = { status: 413, text: 'maximum event size exceeded' }
  return startReceiver<CapturedEvent>(options, { maxBytes: 20_000_000, tooLarge, judge })
}

function breachOfPostHog(event: unknown, historical: boolean): string | undefined {
  if (!isObject(event)) return 'failed to parse request: an event is not an object'
  const { uuid, event: name, distinct_id, timestamp, properties, ...others } = event
  if (JSON.stringify(event).length > 1_000_000) return 'maximum event size exceeded'
  if (Object.keys(others).length > 0) return `failed to parse request: unknown fields ${Object.keys(others)}`
  if (!isText(name, 200)) return 'event submitted with an empty event name'
  if (!isText(distinct_id, 200)) return 'event submitted without a distinct_id'
  if (illegalIds.includes(distinct_id.trim().toLowerCase())) {
    return `event submitted with an illegal distinct_id: ${distinct_id}`
  }
  if (!isUuid(uuid)) return 'failed to parse request: UUID parsing failed'
  if (!isIsoTime(timestamp)) return 'failed to parse request: invalid timestamp'
  if (historical && Date.parse(timestamp) > Date.now() - 48 * 3_600_000) {
    return 'historical migrations are of events older than 48 hours'
  }
  return isObject(properties) ? breachInProperties(name, properties) : 'failed to parse request: properties'
}

function breachInProperties(name: string, { $set, $groups, $group_type, $group_key, $group_set }: Fields) {
  if ($set !== undefined && !isObject($set)) return 'failed to parse request: $set'
  if ($groups !== undefined && !(isObject($groups) && all($groups, isText))) return 'failed to parse request: $groups'
  if (name !== '$groupidentify') return undefined
  if (!isText($group_type) || !isText($group_key)) return 'a group is known by $group_type and $group_key'
  if (!isObject($group_set) || Object.keys($group_set).length === 0) {
    return 'a group comes to be by $group_set, with at least one property'
  }
}


/** What PostHog's app makes of POST /api/projects/:project_id/persons/bulk_delete/; persons are whom it captured events of. */
function judgeDeletion(
  { method, path, headers, body }: Received, { projectId, personalApiKey }: PostHogProject,
  { taken, forgotten }: Pick<Receiver<CapturedEvent>, 'taken' | 'forgotten'>,
): Verdict<CapturedEvent> {
  const refused = (status: number, code: string, detail: string) => ({ status, text: JSON.stringify({ code, detail }) })
  const [, project] = /^\/api\/projects\/([^/]+)\/persons\/bulk_delete\/$/.exec(path) ?? []
  if (project === undefined) return refused(404, 'not_found', 'Endpoint not found.')
  if (headers.authorization !== `Bearer ${personalApiKey}`) {
    return refused(401, 'authentication_failed', `Personal API key found in request Authorization header is invalid: ${headers.authorization}`)
  }
  if (project !== projectId) return refused(403, 'permission_denied', 'You don\'t have access to the project.')
  if (method !== 'POST') return refused(405, 'method_not_allowed', `Method "${method}" not allowed.`)
  if (!isObject(body)) return refused(400, 'parse_error', 'JSON parse error')
  const { ids, distinct_ids, ...flags } = body
  const unknown = unknownFields(flags, ['delete_events', 'delete_recordings', 'keep_person'])
  if (unknown.length > 0) return refused(400, 'invalid_input', `Unknown fields: ${unknown}`)
  if (!all(flags, (value) => typeof value === 'boolean')) return refused(400, 'invalid_input', 'Must be a valid boolean.')
  if (ids !== undefined || !Array.isArray(distinct_ids) || distinct_ids.length === 0) {
    return refused(400, 'invalid_input', 'You need to specify either distinct_ids or ids')
  }
  if (distinct_ids.length > 1000) return refused(400, 'invalid_input', 'You can only pass 1000 distinct_ids in one call')
  const isKnown = (id: unknown) => isText(id) && !forgotten.includes(id) && taken.some(({ distinct_id }) => distinct_id === id)
  const found = distinct_ids.filter(isKnown).length
  const answer = {
    persons_found: found, persons_deleted: flags.keep_person ? 0 : found, deletion_errors: [],
    events_queued_for_deletion: flags.delete_events === true, recordings_queued_for_deletion: flags.delete_recordings === true,
  }
  return { taken: [], forgotten: distinct_ids.map(String), answer: { status: 202, text: JSON.stringify(answer) } }
}


// LogSnag: POST /v1/log -----------------------------------------------------------------------------

/** A log that LogSnag took. */
export type LoggedLog = {
  project: string, channel: string, event: string, description?: string, icon?: string, notify?: boolean
  tags?: Record<string, string | number | boolean>, parser?: 'markdown' | 'text', user_id?: string, timestamp?: number
}

/** LogSnag's API, for one project. Options of the request that it does not know are refused. */
export function startLogSnag(token: string, project: string, options: ReceiverOptions<LoggedLog> = {}) {
  const refused = (message: string) =>
    ({ status: 400, text: JSON.stringify({ message: 'Validation Failed', validation: { body: [{ message }] } }) })
  const judge = (request: Received, poison: (log: LoggedLog) => boolean): Verdict<LoggedLog> => {
    const { authorization } = request.headers
    if (request.path !== '/v1/log') return { status: 404, text: '{"message":"Not Found"}' }
    if (request.method !== 'POST') return { status: 405, text: '{"message":"Method Not Allowed"}' }
    if (authorization !== `Bearer ${token}`) {
      return { status: 401, text: JSON.stringify({ message: `Unauthorized: ${authorization}` }) }
    }
    if (!isJson(request) || !isObject(request.body)) return refused('the body is no JSON object')
    const breach = breachOfLogSnag(request.body, project)
    if (breach) return refused(breach)
    const log = request.body as LoggedLog
    if (poison(log)) return refused('poison')
    return { taken: [log], answer: { status: 200, text: JSON.stringify(log) } }
  }
  const tooLarge = { status: 413, text: '{"message":"Payload Too Large"}' }
  return startReceiver<LoggedLog>(options, { maxBytes: 100_000, tooLarge, judge })
}

const simpleName = /^[a-z0-9]+(-[a-z0-9]+)*$/
const anIcon = /^(?:\p{RGI_Emoji}|\p{Extended_Pictographic}|:[a-z0-9_+\-]+:)$/v
const logFields = [
  'project', 'channel', 'event', 'description', 'icon', 'notify', 'tags', 'parser', 'user_id', 'timestamp']

function breachOfLogSnag(log: Fields, project: string): string | undefined {
  const unknown = unknownFields(log, logFields)
  if (unknown.length > 0) return `unknown fields: ${unknown}`
  if (log.project !== project) return 'there is no such project'
  if (!isText(log.channel) || !simpleName.test(log.channel)) return 'channel: lower-case letters, numbers and dashes'
  if (!isText(log.event)) return 'event is required'
  if ('description' in log && !isText(log.description)) return 'description is not a string'
  if ('icon' in log && !(isText(log.icon) && anIcon.test(log.icon))) return 'icon is not a single emoji'
  if ('notify' in log && typeof log.notify !== 'boolean') return 'notify is not a boolean'
  if ('parser' in log && log.parser !== 'markdown' && log.parser !== 'text') return 'parser is markdown or text'
  if ('user_id' in log && !isText(log.user_id)) return 'user_id is not a string'
  if ('timestamp' in log && !(Number.isInteger(log.timestamp) && Number(log.timestamp) < 10_000_000_000)) {
    return 'timestamp: seconds since 1970'
  }
  if (!('tags' in log)) return undefined
  if (!isObject(log.tags)) return 'tags are not an object'
  for (const [key, value] of Object.entries(log.tags)) {
    if (!/^[a-z]+(-[a-z]+)*$/.test(key)) return `the tag ${key}: lower-case letters and dashes`
    if (!['string', 'number', 'boolean'].includes(typeof value)) return `the tag ${key} is a string, number or boolean`
  }
}


// Bento: POST /api/v1/batch/events?site_uuid=, and deletion -----------------------------------------

/** An event that Bento took. */
export type RecordedEvent = { type: string, email: string, date?: string, fields?: Fields, details?: Fields }

/** A site at Bento: its id, and the keys of its owner. */
export type BentoSite = { siteUuid: string, publishableKey: string, secretKey: string, requestsPerMinute?: number }

/** Bento's API, for one site. It limits requests as Bento does: 100 a minute, or as the site says. */
export function startBento(site: BentoSite, options: ReceiverOptions<RecordedEvent> = {}) {
  const refused = (field: string, message: string) =>
    ({ status: 400, text: JSON.stringify({ errors: [{ field, message }] }) })
  const login = `Basic ${Buffer.from(`${site.publishableKey}:${site.secretKey}`).toString('base64')}`
  let times: number[] = []
  const judge: Contract<RecordedEvent>['judge'] = (request, poison, { taken: recorded, forgotten }) => {
    const { authorization, 'user-agent': agent = '' } = request.headers
    const isDeletion = request.path === '/api/v1/data_deletion_requests'
    if (request.path !== '/api/v1/batch/events' && !isDeletion) return { status: 404, text: '{"error":"Not Found"}' }
    if (request.method !== 'POST') return { status: 404, text: '{"error":"Not Found"}' }
    if (!/^[A-Za-z][\w-]*\/\d/.test(agent) || /^(node|undici|curl|Deno)/.test(agent)) {
      return { status: 403, text: '<html>Attention Required! | Cloudflare</html>' }
    }
    const form = new URLSearchParams(isDeletion && isForm(request) ? request.text : '')
    const siteUuid = isDeletion ? form.get('site_uuid') : request.query.get('site_uuid')
    if (authorization !== login || siteUuid !== site.siteUuid) {
      return { status: 401, text: JSON.stringify({ error: `Unauthorized: ${authorization}` }) }
    }
    times = times.filter((time) => time > Date.now() - 60_000)
    if (times.push(Date.now()) > (site.requestsPerMinute ?? 100)) {
      return { status: 429, text: '{"error":"Too Many Requests"}' }
    }
    if (isDeletion) {
      const email = form.get('data_deletion_request[email]') ?? ''
      if ([...form.keys()].length !== 2 || !email.includes('@')) return { status: 422, text: '{"error":"email is invalid"}' }
      const isKnown = !forgotten.includes(email) && recorded.some((event) => event.email === email)
      if (!isKnown) return { taken: [], answer: { status: 404, text: '{"error":"visitor_not_found"}' } }
      return { taken: [], forgotten: [email], answer: { status: 202, text: '{"status":"queued_for_anonymization"}' } }
    }
    if (!isJson(request) || !isObject(request.body)) return refused('body', 'is not JSON')
    if (unknownFields(request.body, ['events']).length > 0) return refused('body', 'has unknown fields')
    const { events } = request.body
    if (!Array.isArray(events) || events.length < 1 || events.length > 1000) return refused('events', 'are 1 to 1000')
    for (const event of events) {
      const breach = breachOfBento(event)
      if (breach) return refused(...breach)
    }
    const taken = (events as RecordedEvent[]).filter((event) => !poison(event))
    const counts = { results: taken.length, failed: events.length - taken.length }
    return { taken, answer: { status: 200, text: JSON.stringify(counts) } }
  }
  const tooLarge = { status: 413, text: '{"error":"Payload Too Large"}' }
  return startReceiver<RecordedEvent>(options, { maxBytes: 5_000_000, tooLarge, judge })
}

function breachOfBento(event: unknown): [field: string, message: string] | undefined {
  if (!isObject(event)) return ['events', 'are objects']
  const unknown = unknownFields(event, ['type', 'email', 'date', 'fields', 'details'])
  if (unknown.length > 0) return [unknown.join(), 'is unknown']
  if (!isText(event.type)) return ['type', 'is missing']
  if (!isText(event.email) || !/^[^\s@]+@[^\s@]+\.[^\s@]+$/.test(event.email)) return ['email', 'is invalid']
  if ('date' in event && !isIsoTime(event.date)) return ['date', 'is invalid']
  if ('details' in event && !isObject(event.details)) return ['details', 'are not an object']
  const isFlat = (value: unknown) => typeof value !== 'object'
  if ('fields' in event && !(isObject(event.fields) && all(event.fields, isFlat))) return ['fields', 'are nested']
}


// Webhooks: https://www.standardwebhooks.com --------------------------------------------------------

/** A webhook that was verified. */
export type VerifiedWebhook = {
  id: string
  timestamp: number
  payload: { type: string, timestamp: string, data: Fields }
  text: string
}

/** Somebody who takes webhooks, at /hooks, and verifies them with the package that the specification comes with. */
export function startWebhook(secret: string, options: ReceiverOptions<VerifiedWebhook> = {}) {
  const verifier = new Webhook(secret)
  const judge = (request: Received, poison: (webhook: VerifiedWebhook) => boolean): Verdict<VerifiedWebhook> => {
    if (request.path !== '/hooks') return { status: 404, text: 'not found' }
    if (request.method !== 'POST') return { status: 405, text: 'method not allowed' }
    if (!isJson(request)) return { status: 415, text: 'unsupported media type' }
    let payload: unknown
    try {
      payload = verifier.verify(request.text, request.headers as Record<string, string>)
    } catch (error) {
      return { status: 400, text: (error as Error).message }
    }
    if (!isObject(payload) || !isText(payload.type) || !isIsoTime(payload.timestamp) || !isObject(payload.data)) {
      return { status: 400, text: 'a payload is {type, timestamp, data}' }
    }
    const webhook = {
      id: String(request.headers['webhook-id']), timestamp: Number(request.headers['webhook-timestamp']),
      payload: payload as VerifiedWebhook['payload'], text: request.text,
    }
    if (poison(webhook)) return { status: 422, text: 'poison' }
    return { taken: [webhook], answer: { status: 204, text: '' } }
  }
  const tooLarge = { status: 413, text: 'payload too large' }
  return startReceiver<VerifiedWebhook>(options, { maxBytes: 100_000, tooLarge, judge })
}

import { redact } from './secrets.ts'
import { misconfigured, SinkError, type SinkContext, type SinkSettings } from './sink.ts'

/** How requests introduce themselves. */
export const userAgent = 'actorscope/0.1.0'

/** A question to a server. */
export type Question = {
  method: 'GET' | 'POST'
  url: string | URL
  headers: Record<string, string>
  body?: string
  /** Gives it up. */
  signal: AbortSignal
  /** For the answer to be there, whole. */
  timeoutSeconds: number
  /** What must appear in no answer and no error, such as a key that the server repeats. */
  secrets: string[]
  /** How many characters of the answer are read; default 16 Ki. */
  most?: number
}

/** An answer, without the secrets. */
export type Answer = { status: number, statusText: string, headers: Headers, text: string }

/**
 * Asks a server. Redirects are not followed: a key does not go where nobody sent it.
 *
 * @throws {Error} why there is no answer.
 */
export async function ask(fetch: typeof globalThis.fetch, question: Question): Promise<Answer> {
  const { method, url, body, signal, timeoutSeconds, secrets, most = 16 * 1024 } = question
  const timeout = AbortSignal.timeout(timeoutSeconds * 1000)
  try {
    const response = await fetch(url, {
      method, headers: { 'user-agent': userAgent, ...question.headers }, body, redirect: 'manual',
      signal: AbortSignal.any([signal, timeout]),
    })
    const { status, statusText, headers } = response
    return { status, statusText, headers, text: redact((await readText(response, most)).trim(), secrets) }
  } catch (error) {
    if (signal.aborted) throw new Error('The request was stopped.')
    if (timeout.aborted) throw new Error(`There was no answer within ${timeoutSeconds} seconds.`)
    throw new Error(redact(reasonOf(error), secrets))
  }
}

// fetch says "fetch failed", and only its cause says why.
function reasonOf(error: unknown): string {
  const { message, cause } = error as Error & { cause?: { code?: string, message?: string } }
  return [message, cause?.code ?? cause?.message].filter(Boolean).join(': ')
}

async function readText(response: Response, most: number): Promise<string> {
  const decoder = new TextDecoder()
  let text = ''
  for await (const chunk of (response.body ?? []) as AsyncIterable<Uint8Array>) {
    text += decoder.decode(chunk, { stream: true })
    if (text.length >= most) break
  }
  return text.slice(0, most)
}


// Vendors -------------------------------------------------------------------------------------------

/** What a sink sends. */
export type Post = {
  url: string | URL
  headers?: Record<string, string>
  /** JSON. */
  body: string
  signal: AbortSignal
  /** Default 30. */
  timeoutSeconds?: number
  secrets: string[]
}

/**
 * Posts JSON to a vendor.
 *
 * @returns the answer's text.
 * @throws {SinkError} for every outcome but 2xx.
 */
export async function post(batch: SinkSettings, context: SinkContext, request: Post): Promise<string> {
  const { headers, timeoutSeconds = 30, ...rest } = request
  const answer = await ask(context.fetch, {
    method: 'POST', headers: { 'content-type': 'application/json', ...headers }, timeoutSeconds, ...rest,
  }).catch((error: Error) => { throw new SinkError('retry', error.message.slice(0, 500)) })
  if (answer.status < 200 || answer.status > 299) throw refusal(batch, answer)
  return answer.text
}

/**
 * A wrong key, an unpaid bill, a wrong URL: no event is to blame, and all of them would be refused. They wait.
 * 403 is not among them: a firewall says it of one bad text among good ones, and that must not stop the rest.
 */
const sinkStatuses = [401, 402, 404, 405, 407, 410]

function refusal(batch: SinkSettings, { status, statusText, headers, text }: Answer): SinkError {
  const message = `${status} ${text || statusText}`.slice(0, 500)
  if (status === 413) return new SinkError('too_large', message, { status })
  if (status < 400 || sinkStatuses.includes(status)) return misconfigured(batch, `is turned away: ${message}`, status)
  if ([408, 425, 429].includes(status) || status >= 500) {
    return new SinkError('retry', message, { status, retryAfterMs: parseRetryAfter(headers.get('retry-after')) })
  }
  return new SinkError('refused', message, { status })
}

/** The JSON object that a vendor answered with; an empty one where it was none. */
export function parseAnswer(text: string): object {
  try {
    const answer: unknown = JSON.parse(text)
    return typeof answer === 'object' && answer !== null ? answer : {}
  } catch {
    return {}
  }
}

/**
 * How long a `Retry-After` asks to wait, in seconds or until an HTTP date; a day at most.
 *
 * @returns milliseconds; undefined where it asks for nothing that can be understood.
 */
export function parseRetryAfter(header: string | null, now = Date.now()): number | undefined {
  const text = header?.trim() ?? ''
  const untilDate = () => /^[A-Z][a-z]{2,}/.test(text) ? Date.parse(text) - now : Number.NaN
  const wait = /^\d+$/.test(text) ? Number(text) * 1000 : untilDate()
  return wait > 0 ? Math.min(wait, 86_400_000) : undefined
}

import { ask, type Answer } from './http.ts'

/** How to speak to a builder. */
export type BuilderOptions = {
  /** Jobs are at `<url>/jobs/<id>`. */
  readonly url: string
  /** Sent as `x-api-key`. */
  readonly apiKey: string
  readonly fetch: typeof fetch
  /** Ends a request early. */
  readonly signal: AbortSignal
}

/** A job as the builder has it; times in milliseconds since 1970. */
export type Job = {
  status: string
  started_at?: unknown
  completed_at?: unknown
  runner_wait_ms?: unknown
  error?: unknown
}

/** The builder did not answer, or not as it should. Its message holds no key. */
export class BuilderError extends Error {
  override readonly name = 'BuilderError'
}

const answerSeconds = 5
const maxAnswer = 1024 * 1024
const givesUpAfter = 20

/** The builder's API. */
export class Builder {
  private failuresInARow = 0

  constructor(private readonly options: BuilderOptions) {}

  /** Whether nobody gets an answer. */
  get isSilent(): boolean {
    return this.failuresInARow >= givesUpAfter
  }

  /**
   * @returns a job; undefined where the builder knows none of that id.
   * @throws {BuilderError}
   */
  async ask(job: string): Promise<Job | undefined> {
    const answer = await this.request('GET', job, '')
    if (answer.status === 404 || answer.status === 410) return undefined
    if (answer.status !== 200) throw faultOf(answer)
    try {
      const said = JSON.parse(answer.text) as { job?: Job } | null
      if (typeof said?.job?.status === 'string') return said.job
    } catch {
      // Told below.
    }
    throw new BuilderError('The builder answered with something that is no job.')
  }

  /**
   * Stops a job; one that has ended is stopped.
   *
   * @throws {BuilderError}
   */
  async cancel(job: string): Promise<void> {
    const answer = await this.request('POST', job, '/cancel')
    const isOver = [404, 409, 410].includes(answer.status)
    if (!isOver && (answer.status < 200 || answer.status > 299)) throw faultOf(answer)
  }

  private async request(method: 'GET' | 'POST', job: string, action: string): Promise<Answer> {
    const { url, apiKey, fetch, signal } = this.options
    const answer = await ask(fetch, {
      method, url: `${url.replace(/\/+$/, '')}/jobs/${encodeURIComponent(job)}${action}`,
      headers: { 'x-api-key': apiKey }, signal, timeoutSeconds: answerSeconds, secrets: [apiKey], most: maxAnswer,
    }).catch((error: Error) => {
      this.failuresInARow++
      throw new BuilderError(error.message)
    })
    // A builder that turns everybody away is as good as silent.
    const answers = answer.status < 500 && ![401, 403, 429].includes(answer.status)
    this.failuresInARow = answers ? 0 : this.failuresInARow + 1
    return answer
  }
}

function faultOf({ status, text }: Answer): BuilderError {
  return new BuilderError(`The builder answered ${status}: ${text.slice(0, 200)}`)
}

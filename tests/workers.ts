import { spawn, type ChildProcess } from 'node:child_process'
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Sql } from 'postgres'
import { jobNames } from '../src/jobs.ts'
import { createLog } from '../src/log.ts'
import { projectDir } from '../src/settings.ts'
import { runWorker, type WorkerOptions } from '../src/worker.ts'
import { people } from './demo.ts'

/** The jobs that a worker does where there is no builder. */
export const jobsWithoutBuilder = jobNames.filter((name) => name !== 'ask-builder')

/** A line that a worker told. */
export type Line = { level: string, message: string } & Record<string, unknown>

/** `actorscope worker`, or another command, as a process of its own. */
export type Process = {
  readonly pid: number
  /** What it printed on stdout, and told on stderr. */
  output(): string
  told(): string
  /** The lines that it told as JSON. */
  lines(): Line[]
  /** Waits until it has told of something. */
  untilTold(message: string): Promise<Line>
  kill(signal: NodeJS.Signals): void
  hasEnded(): boolean
  /** The exit code, or the signal that ended it. */
  readonly exited: Promise<number | NodeJS.Signals | null>
}

// None of them outlives this process, however that ends.
const running = new Set<ChildProcess>()
process.on('exit', () => { for (const child of running) child.kill('SIGKILL') })

export type CommandOptions = {
  /** What is run; default the sources. */
  program?: string[]
  /** Where it prints to; default a pipe that is read. */
  stdout?: number
}

const sources = [process.execPath, '--import', 'tsx', join(projectDir, 'src/cli.ts')]

/** Starts the command line as a process of its own, in an environment of nothing but what is given. */
export function startCommand(
  args: string[], environment: Record<string, string>, { program = sources, stdout }: CommandOptions = {},
): Process {
  const [command, ...before] = program as [string, ...string[]]
  const child = spawn(command, [...before, ...args], {
    cwd: projectDir, env: { PATH: process.env.PATH, NO_COLOR: '1', ...environment },
    stdio: ['ignore', stdout ?? 'pipe', 'pipe'],
  })
  running.add(child)
  child.once('exit', () => running.delete(child))
  let [output, told] = ['', '']
  child.stdout?.on('data', (chunk) => { output += chunk })
  child.stderr!.on('data', (chunk) => { told += chunk })
  const exited = new Promise<number | NodeJS.Signals | null>((done) =>
    child.once('close', (code, signal) => done(signal ?? code)))
  const lines = () => told.split('\n').filter((line) => line.startsWith('{')).flatMap((line) => {
    try { return [JSON.parse(line) as Line] } catch { return [] }
  })
  return {
    pid: child.pid!,
    output: () => output,
    told: () => told,
    lines,
    async untilTold(message) {
      return until(() => {
        if (child.exitCode !== null) throw new Error(`It has ended:\n${told}`)
        return lines().find((one) => one.message === message)
      }, 60_000)
    },
    kill: (signal) => void child.kill(signal),
    hasEnded: () => child.exitCode !== null || child.signalCode !== null,
    exited,
  }
}

/** A worker in this process, and what it tells. */
export type RunningWorker = { readonly lines: Line[], readonly port: number | undefined, stop(): Promise<void> }

/** What a test says of a worker. */
export type SomeWorkerOptions = Pick<WorkerOptions, 'databaseUrl'> & Partial<WorkerOptions>

/** Starts a worker in this process. */
export async function startWorker(options: SomeWorkerOptions): Promise<RunningWorker> {
  const closing = new AbortController()
  const lines: Line[] = []
  let ended: Promise<void> | undefined
  const port = await new Promise<number | undefined>((started, failed) => {
    ended = runWorker({
      environment: {}, jobs: false, pollMs: 50, closing: closing.signal, started,
      log: createLog({ verbose: true, write: (line) => lines.push(JSON.parse(line)) }), ...options,
    })
    ended.catch(failed)
  })
  return { lines, port, stop: async () => { closing.abort(); await ended } }
}

/** A server that answers as it is told to, and keeps what it was sent; `taken` is what it answered 2xx to. */
export type Hook = {
  readonly url: string
  readonly bodies: any[]
  readonly taken: any[]
  readonly requests: IncomingMessage[]
  answer: Answer
  /** Forgets what it was sent, and answers well again. */
  clear(): void
  close(): Promise<void>
}
type Answer = (response: ServerResponse, body: any, n: number) => void | Promise<void>

const answerWell: Answer = (response) => void response.end('{}')

export async function startHook(answer = answerWell): Promise<Hook> {
  const hook = {
    bodies: [] as any[], taken: [] as any[], requests: [] as IncomingMessage[], answer,
    clear() {
      for (const list of [hook.bodies, hook.taken, hook.requests]) list.length = 0
      hook.answer = answerWell
    },
  }
  const server = createServer((request, response) => {
    const chunks: Buffer[] = []
    request.on('data', (chunk) => chunks.push(chunk)).once('end', async () => {
      const text = Buffer.concat(chunks).toString()
      const body = text ? JSON.parse(text) : undefined
      hook.requests.push(request)
      response.once('finish', () => { if (response.statusCode < 300) hook.taken.push(body) })
      await hook.answer(response, body, hook.bodies.push(body))
    })
  })
  await new Promise<void>((done) => server.listen(0, '127.0.0.1', done))
  return Object.assign(hook, {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    close: () => new Promise<void>((done) => { server.close(() => done()); server.closeAllConnections() }),
  })
}

/** Writes events of people's own, one transaction each. */
export async function writeEvents(sql: Sql, names: string[], scopes: string[] = [people.ada]): Promise<void> {
  for (const [n, name] of names.entries()) {
    const scope = scopes[n % scopes.length]!
    await sql`
      insert into events (scope_id, actor_id, occurred_at, event_id, event, source)
      select ${scope}, ${scope}, tracking.event_time(i.id), i.id, ${name}, 'service'
      from   tracking.new_event_id(clock_timestamp()) as i (id)`
  }
}

/** Waits until something is so, and answers with it. */
export async function until<T>(ask: () => T | Promise<T>, timeout = 60_000): Promise<NonNullable<T>> {
  for (const end = Date.now() + timeout; ;) {
    const answer = await ask()
    if (answer) return answer
    if (Date.now() > end) throw new Error(`It was not so within ${timeout} ms: ${ask}`)
    await sleep(20)
  }
}

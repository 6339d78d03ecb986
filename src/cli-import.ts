import { once } from 'node:events'
import { createReadStream } from 'node:fs'
import { open, stat, type FileHandle } from 'node:fs/promises'
import { importEvents, type Reject } from './bulk.ts'
import { openApi } from './cli-api.ts'
import type { ApiOptions, Cli } from './cli-options.ts'
import type { DataApi } from './data-api.ts'
import { newImport, readImport, writeImport, type ImportState } from './import-state.ts'
import { ProgressBar } from './progress-bar.ts'
import { isSet } from './runtime.ts'
import { jsonLine, visible } from './terminal.ts'
import { TrackingError } from './tracking-error.ts'

type Options = ApiOptions & { resume?: string, rejects?: string, retryFor: number }

/** Records the JSON lines of a file, or of stdin (`-`), and says what became of them. */
export async function importFile(cli: Cli, file: string, options: Options): Promise<void> {
  const api = await openApi(cli, options)
  if (isSet('DO_NOT_TRACK') || isSet('ACTORSCOPE_DISABLED')) throw api.forTerminal(new TrackingError('opted_out'))
  const { input, bytes } = await openInput(file)
  const resume = options.resume ?? (bytes === undefined ? undefined : `${file}.progress`)
  const state = await begin(resume)
  const linesBefore = state.lines
  const rejects = options.rejects === undefined ? undefined : await Rejects.open(options.rejects, state)
  try {
    await run(cli, { input, bytes, api, resume, state, rejects, retryFor: options.retryFor })
  } finally {
    await rejects?.close()
    input.destroy()
  }
  const { lines, recorded, duplicates, dropped } = state
  if (linesBefore === lines) cli.terminal.say('There is nothing new in it.')
  await cli.terminal.print(options.json ? jsonLine({ recorded, duplicates, dropped })
    : `${count(recorded)} recorded, ${count(duplicates)} there already, ${count(dropped)} dropped`)
  if (dropped > 0) process.exitCode = 1
}

type Run = {
  input: AsyncIterable<Buffer>
  bytes: number | undefined
  api: DataApi
  resume: string | undefined
  state: ImportState
  rejects: Rejects | undefined
  retryFor: number
}

async function run({ terminal, interrupted }: Cli, work: Run): Promise<void> {
  const { input, bytes, api, resume, state, rejects, retryFor } = work
  const { yellow, red } = terminal.talkColors
  const bar = new ProgressBar(terminal, bytes)
  let isWaiting = false
  try {
    await importEvents({
      input, state, retryFor, interrupted,
      send: (json) => api.post('/rest/v1/rpc/track_events', json),
      toError: (answer) => api.toError(answer),
      warn: (line, warning) => terminal.say(yellow(`line ${line}: warning: ${visible(warning)}`)),
      waits: ({ message }) => {
        if (!isWaiting) terminal.say(yellow(`trying again: ${visible(message)}`))
        isWaiting = true
      },
      reject: async (dropped) => {
        for (const reject of dropped) terminal.say(red(asLine(reject)))
        if (rejects) state.rejectsBytes = await rejects.add(dropped)
      },
      save: async (kept) => {
        isWaiting = false
        if (resume !== undefined) await writeImport(resume, kept)
      },
      progress: (done) => bar.show(done, state),
    })
  } catch (error) {
    bar.hide()
    if (resume !== undefined && state.lines > 0) {
      terminal.say(`Stopped after line ${count(state.lines)}: the same command goes on from there.`)
    }
    throw error
  }
  bar.hide()
}

/** Takes an import up where it stopped. One that came to its end, and dropped lines, begins again: to try those. */
async function begin(resume: string | undefined): Promise<ImportState> {
  const before = resume === undefined ? undefined : await readImport(resume)
  const fresh = newImport(new Date())
  if (!before) return fresh
  return before.finished && before.dropped > 0 ? { ...fresh, startedAt: before.startedAt } : before
}

type Input = AsyncIterable<Buffer> & { destroy(): void }

/** Opens a file; how long it is where it is one, and no pipe. */
async function openInput(file: string): Promise<{ input: Input, bytes?: number }> {
  if (file === '-') return { input: process.stdin }
  try {
    const found = await stat(file)
    if (found.isDirectory()) throw new Error('it is a folder')
    const input = createReadStream(file)
    await once(input, 'ready')
    return { input, bytes: found.isFile() ? found.size : undefined }
  } catch (cause) {
    throw new TrackingError('file_unreadable', {
      details: `${file} cannot be read: ${(cause as Error).message}.`,
      hint: 'Name a file of JSON lines, or - for stdin.',
      cause,
    })
  }
}

function asLine({ line, code, details, hint }: Reject): string {
  return `line ${line}: ${visible([code, details].filter(Boolean).join(': '))}${hint ? ` (${visible(hint)})` : ''}`
}

const count = (number: number): string => number.toLocaleString('en')

/** The file of what was dropped: as long as the state says, whatever a run that was killed had added. */
class Rejects {
  private constructor(private readonly path: string, private readonly file: FileHandle, private length: number) {}

  static async open(path: string, { rejectsBytes }: ImportState): Promise<Rejects> {
    try {
      const file = await open(path, 'a')
      const length = Math.min((await file.stat()).size, rejectsBytes)
      await file.truncate(length)
      return new Rejects(path, file, length)
    } catch (cause) {
      throw Rejects.unwritable(path, cause as Error)
    }
  }

  /** @returns how long the file is then, in bytes; they are on the disk. */
  async add(rejects: Reject[]): Promise<number> {
    const text = rejects.map((reject) => `${JSON.stringify(reject)}\n`).join('')
    try {
      await this.file.appendFile(text)
      await this.file.datasync()
    } catch (cause) {
      throw Rejects.unwritable(this.path, cause as Error)
    }
    return this.length += Buffer.byteLength(text)
  }

  async close(): Promise<void> {
    await this.file.close()
  }

  private static unwritable(path: string, cause: Error): TrackingError {
    return new TrackingError('file_unwritable', {
      details: `${path} cannot be written: ${cause.message}.`, hint: 'Name another file with --rejects.', cause })
  }
}

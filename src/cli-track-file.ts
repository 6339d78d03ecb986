import { importEvents } from './bulk.ts'
import { openApi } from './cli-api.ts'
import type { ApiOptions, Cli } from './cli-options.ts'
import type { DataApi } from './data-api.ts'
import { asLine, openInput, refuseSameFiles, Rejects, type Input } from './import-files.ts'
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
  await refuseSameFiles(file, options.rejects, resume)
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
  input: Input
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

const count = (number: number): string => number.toLocaleString('en')

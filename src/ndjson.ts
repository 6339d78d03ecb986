import { open, type FileHandle } from 'node:fs/promises'
import process from 'node:process'
import { readSettings, SinkError, type LoggedEvent, type Sink, type SinkSettings } from './sink.ts'

/**
 * Writes each event as a line of JSON: the row of public.events, as it is.
 * Settings: `path`, a file that is appended to; without it, to standard output.
 * The lines are on the disk before the events count as delivered. The file is opened for each batch, so it may be
 * moved away at any time, and a line that a crash cut short does not spoil the next.
 */
export function openNdjson(batch: SinkSettings): Sink {
  const { path } = readSettings(batch, { path: 'text' })
  return {
    maxBatch: 1000,
    async send(events: LoggedEvent[], signal) {
      const lines = Buffer.concat(events.flatMap(({ json }) => [json, lineEnd]))
      const writing = path === undefined ? print(lines) : append(path, lines)
      await Promise.race([writing, stopped(signal)]).catch((cause: Error) => {
        throw new SinkError('retry', cause.message, { cause })
      })
      return []
    },
  }
}

const lineEnd = Buffer.from('\n')

/** Rejects when it is time to stop: who reads a pipe may never come back. */
function stopped(signal: AbortSignal): Promise<never> {
  return new Promise((_, fail) => {
    const stop = () => fail(new Error('The writing was stopped.'))
    if (signal.aborted) stop()
    signal.addEventListener('abort', stop, { once: true })
  })
}

async function append(path: string, lines: Buffer): Promise<void> {
  const file = await open(path, 'a+')
  try {
    const stats = await file.stat()
    await writeWhole(file, await endsInLine(file, stats.size) ? lines : Buffer.concat([lineEnd, lines]))
    if (stats.isFile()) await file.datasync() // a pipe cannot
  } finally {
    await file.close()
  }
}

async function endsInLine(file: FileHandle, size: number): Promise<boolean> {
  if (size === 0) return true
  const { buffer } = await file.read(new Uint8Array(1), 0, 1, size - 1)
  return buffer[0] === 0x0a
}

/** In one go where the system lets it, so that what others append, for other shards say, comes before or after. */
async function writeWhole(file: FileHandle, lines: Buffer): Promise<void> {
  for (let rest = lines; rest.length > 0;) {
    const { bytesWritten } = await file.write(rest)
    rest = rest.subarray(bytesWritten)
  }
}

function print(lines: Buffer): Promise<void> {
  return new Promise((done, fail) => {
    process.stdout.write(lines, (error) => { if (error) fail(error); else done() })
  })
}

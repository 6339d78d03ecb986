/** What can keep the local stack from running. Every one of these is the reader's to put right, none is a bug. */
export type StackErrorCode =
  | 'setting_invalid'
  | 'port_in_use'
  | 'data_in_use'
  | 'data_unusable'
  | 'data_outdated'
  | 'platform_unsupported'
  | 'database_unusable'
  | 'postgres_failed'
  | 'migration_failed'
  | 'build_failed'

/** An expected failure of the local stack: `code` is stable, the message is a sentence that says what to do. */
export class StackError extends Error {
  override readonly name = 'StackError'

  constructor(readonly code: StackErrorCode, message: string, options?: ErrorOptions) {
    super(message, options)
  }
}

/** The error for a port that somebody else listens on; `variable` is what chooses another. */
export function portInUse(port: number, variable = 'its number', cause?: unknown): StackError {
  return new StackError('port_in_use',
    `Port ${port} is in use. Stop what uses it, or set ${variable} to another.`, { cause })
}

/* The messages on Kafka. The fields are in messages.def, one row each; their reference page is schemas/README.md.
 *
 * mr_chat_request, mr_response_delta, … are plain structs; mr_chat_request_def, … are their tables for the codec.
 * Field numbers for MR_HAS and MR_SET are MR_<MESSAGE>_<FIELD>: MR_CHAT_REQUEST_ID, MR_SAMPLING_SEED.
 */
#ifndef MR_MESSAGES_H
#define MR_MESSAGES_H

#include "schemas/codec.h"

#define MR_ID_MAX          128
#define MR_NAME_MAX        200
#define MR_CHOICES_MAX     16           /* answers to one question */
#define MR_IMAGE_URL_MAX   (2 * 262144) /* twice what the NextChat web app lets a picture take */
#define MR_TEXT_MAX        4000000      /* the largest record that a broker takes here is smaller */
#define MR_SCHEMA_TEXT_MAX 262144       /* what the engine takes */
#define MR_TOOLS_MAX       128
#define MR_TOOL_NAME_MAX   64
#define MR_CALLS_MAX       64 /* tool calls in one answer */
#define MR_DELTA_MAX       1000000
#define MR_TURN_TEXT_MAX   32768 /* bytes that a session keeps of a text */
#define MR_TOKENS_MAX      262144 /* of an answer that another attempt can go on with */
#define MR_BYTES_MAX       1e12
#define MR_TIME_MAX        9e15 /* exact in a double, and in JavaScript */

/* Values of the enum fields; the names on the wire are in messages.c in the same order. */
enum mr_role { MR_ROLE_SYSTEM, MR_ROLE_USER, MR_ROLE_ASSISTANT, MR_ROLE_DEVELOPER, MR_ROLE_TOOL };
enum mr_part_type { MR_PART_IS_TEXT, MR_PART_IS_IMAGE };
enum mr_format { MR_FORMAT_TEXT, MR_FORMAT_JSON_OBJECT, MR_FORMAT_JSON_SCHEMA };
enum mr_purpose { MR_PURPOSE_CHAT, MR_PURPOSE_TITLE, MR_PURPOSE_SUMMARY };
enum mr_tool_choice_type { MR_TOOLS_NONE, MR_TOOLS_AUTO, MR_TOOLS_REQUIRED, MR_TOOLS_FUNCTION };
enum mr_channel { MR_CHANNEL_CONTENT, MR_CHANNEL_REASONING, MR_CHANNEL_TOOL_CALL };
enum mr_source { MR_SOURCE_MODEL, MR_SOURCE_KB, MR_SOURCE_GUARD };
enum mr_guard_layer { MR_LAYER_ACCESS, MR_LAYER_INPUT, MR_LAYER_OUTPUT };
enum mr_control_kind {
    MR_CONTROL_IS_CANCEL,
    MR_CONTROL_IS_WEIGHTS,
    MR_CONTROL_IS_ROLLOUT,
    MR_CONTROL_IS_DRAIN,
    MR_CONTROL_IS_RECYCLE,
    MR_CONTROL_IS_RECYCLED,
    MR_CONTROL_IS_RESUME,
};
enum mr_color { MR_BLUE, MR_GREEN };
#define MR_COLORS 2
enum mr_rollout_state {
    MR_ROLLOUT_WAITING,  /* for workers of the new color that are ready */
    MR_ROLLOUT_SHIFTING, /* its share is that of the step */
    MR_ROLLOUT_DRAINING, /* it has all of the traffic; the old color works off what it has */
    MR_ROLLOUT_STOPPING, /* the old color's workers are told to end */
    MR_ROLLOUT_DONE,
    MR_ROLLOUT_RETURNING, /* the old color has the traffic back; the new one works off what it has */
    MR_ROLLOUT_ROLLED_BACK,
    MR_ROLLOUT_ABORTED, /* stopped where it was */
};
enum mr_worker_state {
    MR_WORKER_STARTING,
    MR_WORKER_READY,
    MR_WORKER_RECYCLING,
    MR_WORKER_DRAINING,
    MR_WORKER_STANDBY,
    MR_WORKER_GONE,
};
enum mr_finish {
    MR_FINISH_STOP,
    MR_FINISH_LENGTH,
    MR_FINISH_CONTENT_FILTER,
    MR_FINISH_TOOL_CALLS,
    MR_FINISH_CANCELLED,
    MR_FINISH_ERROR,
};

extern const char *const mr_role_names[];
extern const char *const mr_part_type_names[];
extern const char *const mr_format_names[];
extern const char *const mr_purpose_names[];
extern const char *const mr_tool_choice_names[];
extern const char *const mr_channel_names[];
extern const char *const mr_source_names[];
extern const char *const mr_control_kind_names[];
extern const char *const mr_color_names[];
extern const char *const mr_rollout_state_names[];
extern const char *const mr_worker_state_names[];
extern const char *const mr_finish_names[];
extern const char *const mr_guard_layer_names[];
extern const char *const mr_guard_action_names[]; /* of mr_guard_action in guard/words.h */

#define MR_TABLE "schemas/messages.def"
#include "schemas/table_declare.h"

/* Every message and part in table order, ends with NULL. */
extern const mr_message_def *const mr_messages[];

/* Is this a usable request id: 1 to MR_ID_MAX bytes of printable ASCII without spaces? */
bool mr_id_ok(mr_str id);

#endif

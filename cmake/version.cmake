# ALGAN_VERSION: the version in pyproject.toml, the one place that states it.
set(pyproject "${CMAKE_CURRENT_LIST_DIR}/../pyproject.toml")
set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS "${pyproject}")
file(STRINGS "${pyproject}" line REGEX "^version = \"[0-9]" LIMIT_COUNT 1)
# CMake's versions are numbers only: of 1.2.0rc1 it sees 1.2.0.
if(NOT line MATCHES "([0-9]+\\.[0-9]+\\.[0-9]+)")
  message(FATAL_ERROR "pyproject.toml: expected a line like version = \"1.2.3\", found \"${line}\"")
endif()
set(ALGAN_VERSION "${CMAKE_MATCH_1}")
